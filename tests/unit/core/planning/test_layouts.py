"""Which layouts there are, and the reason for each that cannot be."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.hardware import parse_machine
from nimctl.core.memory.ranks import Parallel
from nimctl.core.parallel import Sizes
from nimctl.core.planning.cluster import Cluster, Slot, cluster_of_machine
from nimctl.core.planning.layouts import layouts, misfits, obstacles, spread
from nimctl.core.planning.model import ModelFacts, model_facts, of_recipe
from nimctl.core.planning.plan import make_plan
from nimctl.core.planning.wishes import Wishes
from nimctl.core.recipes import load

CONFIGS: Mapping[str, Any] = json.loads(
    (Path(__file__).parents[3] / "data" / "memory" / "models.json").read_text(encoding="utf-8")
)
KIMI, V3, LLAMA = "moonshotai/Kimi-K2.5", "deepseek-ai/DeepSeek-V3", "meta-llama/Meta-Llama-3.1-70B"
QWEN, QWEN_FP8, NEXT = "Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-235B-A22B-FP8", "Qwen/Qwen3-Next-80B-A3B-Instruct"
MINIMAX, VISION = "MiniMaxAI/MiniMax-M2.7", "Qwen/Qwen3-VL-32B-Instruct"


def model(name: str, **changes: Any) -> ModelFacts:
    config = dict(CONFIGS[name]["config"])
    if "text_config" in config:
        text = {key: value for key, value in changes.items() if key != "architectures"}
        config["text_config"] = {**config["text_config"], **text}
        changes = {key: value for key, value in changes.items() if key == "architectures"}
    return model_facts(name, {**config, **changes})


def machine(shape: str) -> Cluster:
    return cluster_of_machine(parse_machine(shape))


def nodes(gpus: int, count: int = 1) -> Cluster:
    return Cluster(tuple(Slot(index, "NVIDIA H200", (9, 0), 150 * 10**9) for index in range(gpus)), count, "nvlink")


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
RULES = {
    "heads": (model(KIMI), Parallel(3), "64 attention heads do not divide by 3"),
    "key-value heads": (model(LLAMA, num_attention_heads=48), Parallel(12), "8 key-value heads and 12 ranks do not"),
    "heads of linear attention": (
        model(NEXT, num_attention_heads=64, num_key_value_heads=1),
        Parallel(32),
        "16 key heads of linear attention do not divide by 32",
    ),
    "heads of state-space layers": (
        model(LLAMA, mamba_num_heads=4, n_groups=8),
        Parallel(8),
        "4 heads of the state-space layers do not divide by 8",
    ),
    "groups of state-space layers": (
        model(LLAMA, mamba_num_heads=128, n_groups=8),
        Parallel(16),
        "8 groups of the state-space layers do not divide by 16",
    ),
    "vocabulary": (
        model(LLAMA, num_attention_heads=96, num_key_value_heads=96, vocab_size=1000),
        Parallel(3),
        "the vocabulary, 1024 rows with padding, does not divide by 3",
    ),
    "dense width": (
        model(LLAMA, intermediate_size=28676),
        Parallel(8),
        "28676 columns of the feed-forward network do not divide by 8",
    ),
    "dense FP8 blocks": (
        model(LLAMA, quantization_config=FP8),
        Parallel(64),
        "a rank's 448 columns of the feed-forward network are no whole FP8 blocks of 128",
    ),
    "first dense layers of a model with experts": (
        model(V3, intermediate_size=18436),
        Parallel(8),
        "18436 columns of the feed-forward network do not divide by 8",
    ),
    "shared experts": (
        model(V3),
        Parallel(32),
        "a rank's 576 columns of the feed-forward network are no whole FP8 blocks of 128",
    ),
    "shared experts' width": (
        model(NEXT, shared_expert_intermediate_size=516),
        Parallel(8),
        "516 columns of the shared experts do not divide by 8",
    ),
    "experts' width": (model(QWEN), Parallel(1, data=5), "an expert's 1536 columns do not divide by 5"),
    "INT4 groups": (
        model(KIMI, moe_intermediate_size=1024),
        Parallel(64),
        "an expert's 1024 columns do not divide by 64 in groups of 32",
    ),
    "Marlin's hidden size": (
        model(KIMI, hidden_size=7200),
        Parallel(8),
        "four-bit experts want a hidden size in steps of 128, and it is 7200",
    ),
    "FP8 blocks of experts": (
        model(QWEN_FP8),
        Parallel(64),
        "an expert's 1536 columns, cut in 64, cannot keep FP8 scales for blocks of 128",
    ),
    "experts of a dense model": (
        model(LLAMA),
        Parallel(8, expert=True),
        "expert parallelism needs experts, and this model is dense",
    ),
    "an expert for each rank": (
        model(KIMI),
        Parallel(1, data=512, expert=True),
        "384 experts are fewer than 512 ranks, and some would hold none",
    ),
    "an expert for each tensor rank": (
        model(MINIMAX, num_local_experts=4),
        Parallel(8),
        "4 experts are fewer than 8 tensor ranks, which this model refuses",
    ),
    "a layer for each stage": (model(KIMI), Parallel(1, 62), "61 layers are fewer than 62 stages"),
    "stages": (
        model(KIMI, architectures=["Phi4MMForCausalLM"]),
        Parallel(4, 2),
        "Phi4MMForCausalLM cannot be cut into pipeline stages",
    ),
    "decode-context ranks": (
        model(KIMI),
        Parallel(8, decode_context=3),
        "3 decode-context ranks do not divide 8 tensor ranks",
    ),
    "a cache without copies": (
        model(LLAMA),
        Parallel(8, decode_context=2),
        "the cache of 8 key-value heads is divided among 8 ranks already",
    ),
    "more decode-context ranks than copies": (
        model(LLAMA),
        Parallel(16, decode_context=4),
        "16 ranks hold each key-value head 2 times: no room for 4",
    ),
    "windows": (
        of_recipe(load("gpt-oss-120b"))[0],
        Parallel(16, decode_context=2),
        "decode-context parallelism does not serve sliding windows",
    ),
    "chunks": (
        model(LLAMA, attention_chunk_size=8192),
        Parallel(16, decode_context=2),
        "decode-context parallelism does not serve chunked attention",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_gives_one_reason(rule: str) -> None:
    of, parallel, reason = RULES[rule]
    assert of.config is not None
    (found,) = obstacles(of, parallel)
    assert found.startswith(reason)


VALID = {
    "compressed attention has no key-value heads to divide": (model(KIMI), Parallel(64)),
    "heads copied evenly": (model(LLAMA), Parallel(16)),
    "decode-context ranks of compressed attention": (model(KIMI), Parallel(8, decode_context=8)),
    "decode-context ranks of copies": (model(LLAMA), Parallel(16, decode_context=2)),
    "decode-context ranks beside states": (model(NEXT), Parallel(8, decode_context=4)),
    "whole experts however wide": (model(KIMI, moe_intermediate_size=1000), Parallel(1, data=8, expert=True)),
    "refined FP8 blocks": (model(QWEN_FP8), Parallel(8)),
    "copied shared experts": (model(V3), Parallel(2, data=4, expert=True)),
    "a vision tower whose heads do not divide": (
        model_facts("v", {**CONFIGS[VISION]["config"], "vision_config": {"num_heads": 6, "hidden_size": 96}}),
        Parallel(8),
    ),
    "replicas of stages": (model(LLAMA), Parallel(2, 2, 2)),
    "a model of which nothing is known": (model_facts("unknown", None), Parallel(7, 3, 5)),
}


@pytest.mark.parametrize("case", VALID)
def test_what_the_engine_divides_has_no_obstacle(case: str) -> None:
    of, parallel = VALID[case]
    assert obstacles(of, parallel) == []


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        (Wishes(sizes=Sizes(tensor=3)), "64 attention heads do not divide by 3"),
        (Wishes(sizes=Sizes(tensor=16)), "it needs 16 GPUs, 8 are given"),
        (Wishes(decode_context=3), "3 decode-context ranks do not divide 8 tensor ranks"),
        (Wishes(sizes=Sizes(tensor=1, pipeline=62)), "61 layers are fewer than 62 stages"),
        (Wishes(sizes=Sizes(data=9)), "it needs 9 GPUs, 8 are given"),
    ],
    ids=["TP=3", "TP=16", "DCP=3", "PP=62", "DP=9"],
)
def test_an_impossible_wish_ends_in_its_reason(wishes: Wishes, reason: str) -> None:
    plan = make_plan([of_recipe(load("kimi-k2.5"))[0]], machine("8xH200"), wishes)
    assert plan.chosen is None and plan.fits is False
    assert reason in plan.because
    assert all(candidate.certain for candidate in plan.candidates)


def test_whole_experts_of_a_dense_model_end_in_their_reason() -> None:
    plan = make_plan([of_recipe(load("llama-3.1-70b"))[0]], machine("8xH200"), Wishes(expert=True))
    assert plan.because == "expert parallelism needs experts, and this model is dense"


@pytest.mark.parametrize(
    ("cluster", "parallel", "taken"),
    [
        (nodes(8), Parallel(8), (1, 8)),
        (nodes(8), Parallel(2, 3), (1, 6)),
        (nodes(8, 2), Parallel(8, 2), (2, 8)),
        (nodes(8, 2), Parallel(4, 3), None),
        (nodes(6, 2), Parallel(4, 2), (2, 4)),
        (nodes(6, 2), Parallel(4, 3), None),
        (nodes(8, 4), Parallel(8, 3), (3, 8)),
        (nodes(8, 2), Parallel(16), (2, 8)),
        (nodes(8, 2), Parallel(12), None),
        (nodes(4, 2), Parallel(1, data=8), (2, 4)),
        (nodes(8, 2), Parallel(32), None),
    ],
)
def test_ranks_are_spread_evenly_and_tensor_groups_stay_together(
    cluster: Cluster, parallel: Parallel, taken: tuple[int, int] | None
) -> None:
    assert spread(cluster, parallel) == taken
    assert bool(misfits(cluster, parallel)) == (taken is None)


@pytest.mark.parametrize(
    ("cluster", "parallel", "taken"),
    [
        (nodes(8, 2), Parallel(8), None),
        (nodes(8, 2), Parallel(8, 2), (2, 8)),
        (nodes(8, 2), Parallel(4, 2), (2, 4)),
        (nodes(1, 2), Parallel(2), (2, 1)),
        (nodes(1, 2), Parallel(1, 2), (2, 1)),
        (nodes(8, 3), Parallel(16), None),
        (nodes(8, 2), Parallel(1, data=2), (2, 1)),
    ],
)
def test_of_nodes_that_run_together_none_stays_idle(
    cluster: Cluster, parallel: Parallel, taken: tuple[int, int] | None
) -> None:
    assert spread(replace(cluster, together=True), parallel) == taken


def test_what_has_no_place_says_why() -> None:
    assert misfits(nodes(8), Parallel(16)) == ["it needs 16 GPUs, 8 are given"]
    assert misfits(nodes(6, 2), Parallel(4, 3)) == [
        "12 ranks in groups of 4 cannot be spread evenly over 2 nodes of 6 GPUs"
    ]
    assert misfits(nodes(8), Parallel(8), (10, 0)) == ["it needs compute capability 10.0, these GPUs have 9.0"]
    slices = Cluster(tuple(Slot(0, "NVIDIA H200", (9, 0), 20 * 2**30, slice=f"0:{n}") for n in range(7)))
    assert misfits(slices, Parallel(2)) == ["MIG slices cannot work together: NCCL takes one of each GPU"]


def test_every_layout_is_told_once_and_what_was_asked_for_is_kept() -> None:
    kimi = model(KIMI)
    for wishes in (Wishes(), Wishes(goal="throughput"), Wishes(goal="context")):
        found = list(layouts(kimi, machine("2x8xH100"), wishes))
        assert len(found) == len(set(found))
        assert Parallel(8, 2) in found and Parallel(16) in found
    asked = Wishes(sizes=Sizes(tensor=4), expert=True, decode_context=2)
    assert all(p.tensor == 4 and p.expert and p.decode_context == 2 for p in layouts(kimi, machine("8xH200"), asked))
    sliced = Cluster(tuple(Slot(0, "NVIDIA H200", slice=f"0:{n}") for n in range(7)))
    assert list(layouts(kimi, sliced, Wishes())) == [Parallel()]

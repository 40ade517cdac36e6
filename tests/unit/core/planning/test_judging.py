"""The verdict: what no account knows, what others hold, what is asked for to the byte, and the model's context."""

from typing import Any

import pytest

from nimctl.core.engine_options import parse_options
from nimctl.core.gpus import Gpu
from nimctl.core.planning.candidate import Candidate
from nimctl.core.planning.cluster import Cluster, cluster_of
from nimctl.core.planning.model import model_facts, of_checkpoint
from nimctl.core.planning.plan import make_plan
from nimctl.core.planning.wishes import wishes_of
from nimctl.core.recipes import load
from tests.unit.core.planning.test_deciding import dense, gpus, layout, recipe, refused

GIB = 2**30
H100 = 81559 * 2**20


def h100(count: int, free: int | None = None) -> Cluster:
    return cluster_of(
        [
            Gpu(i, name="NVIDIA H100 80GB HBM3", compute_capability="9.0", memory_total=H100, memory_free=free)
            for i in range(count)
        ]
    )


def best(name: str, on: Cluster, words: str = "") -> Candidate:
    return make_plan([of_checkpoint(load(name))], on, wishes_of(parse_options(words.split()))).best


@pytest.mark.parametrize(
    "words",
    [
        "--quantization fp8", "--cpu-offload-gb 100", "--dtype float32", "--enable-eplb",
        "--performance-mode throughput",
        "--hf-overrides {}", "--hf-overrides.max_position_embeddings 9", "--spec-method mtp", "--enable-lora",
        "--speculative-config.method mtp",
    ],
)  # fmt: skip
def test_an_option_that_no_account_knows_is_neither_promised_nor_refused(words: str) -> None:
    for on in (h100(8), h100(1)):
        found = best("llama-3.3-70b", on, words)
        assert (found.verdict, found.certain) == ("unknown", False)
        assert words.split(maxsplit=1)[0] in found.reasons[-1]


def test_such_an_option_lets_the_context_be_longer() -> None:
    words = "--max-model-len 131072"
    assert best("qwen3-32b", h100(4), words).verdict == "incompatible"
    assert best("qwen3-32b", h100(4), f"{words} --hf-overrides {{}}").verdict == "unknown"


@pytest.mark.parametrize("free", [2, 5, 26, 40])
def test_what_only_others_are_in_the_way_of_is_never_refused_for_certain(free: int) -> None:
    found = best("llama-3.1-8b", h100(1, free * GIB))
    assert not found.certain
    made = layout(load("llama-3.1-8b"), h100(1, free * GIB))
    assert made.doubt or made.arguments


def test_what_does_not_fit_an_idle_gpu_does_not_fit_a_busy_one() -> None:
    assert best("llama-3.3-70b", h100(1, 70 * GIB)).certain
    assert refused(load("llama-3.3-70b"), h100(1, 70 * GIB)).id == "no-layout"


def test_a_lowered_share_is_handed_on_also_where_the_plan_doubts() -> None:
    made = layout(load("llama-3.3-70b"), h100(2, 70 * GIB))
    assert made.doubt is not None and made.arguments == {"gpu-memory-utilization": "0.87"}


def test_an_unknown_model_minds_what_is_free() -> None:
    mystery = recipe({**dense(8, 2), "architectures": ["Mystery"]}, 16 * GIB)
    made = layout(mystery, h100(1, 30 * GIB))
    assert made.arguments == {"gpu-memory-utilization": "0.37"} and "is free" in made.because
    assert layout(mystery, h100(1, 1 * GIB)).doubt is not None


@pytest.mark.parametrize(("asked", "verdict", "certain"), [("20G", "runnable", False), ("100T", "incompatible", True)])
def test_a_cache_of_a_fixed_size_is_taken_as_it_is(asked: str, verdict: str, certain: bool) -> None:
    found = best("llama-3.1-8b", h100(1), f"--kv-cache-memory-bytes {asked}")
    assert (found.verdict, found.certain) == (verdict, certain)
    if verdict == "runnable":
        assert found.stages[0].available == 20 * GIB


def test_a_fixed_cache_that_is_too_small_is_too_small_for_certain() -> None:
    found = best("llama-3.1-8b", h100(1), "--kv-cache-memory-bytes 1M")
    assert found.verdict != "runnable" and found.certain


def test_drafts_without_a_number_are_one_token_each() -> None:
    number = best("deepseek-v3", gpus(8), '--speculative-config {"method":"mtp","num_speculative_tokens":1}')
    without = best("deepseek-v3", gpus(8), '--speculative-config {"method":"mtp"}')
    assert without.kv_tokens == number.kv_tokens and without.stages == number.stages


@pytest.mark.parametrize(
    ("changes", "context", "longest"),
    [
        ({}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 32768, 32768),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, 16384, 16384),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "longrope"}, "original_max_position_embeddings": 4096}, 4096, 8192),
        ({"model_max_length": 131072}, 131072, 131072),
        ({"max_position_embeddings": None, "n_positions": 2048}, 2048, 2048),
        ({"seq_length": 1024}, 1024, 1024),
        ({"max_position_embeddings": None}, None, None),
        ({"rope_scaling": {"rope_type": "linear", "factor": "many"}}, 8192, 8192),
    ],
)
def test_the_context_is_what_the_engine_takes(
    changes: dict[str, Any], context: int | None, longest: int | None
) -> None:
    """https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/model.py (_get_and_verify_max_len)"""
    found = model_facts("m", {**dense(8, 2), **changes})
    assert (found.context, found.longest) == (context, longest)


def test_ranks_that_divide_a_prompt_are_refused_before_anything_else() -> None:
    error = refused(load("kimi-k2.5"), gpus(8), "-tp 4 -pcp 2")
    assert error.id == "usage" and "-pcp 2" in error.message


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--tensor-parallel 2", "tp2-pp1"),
        ("--pipeline-par 2", "tp4-pp2"),
        ("--tensor_parallel=4", "tp4-pp1"),
    ],
)
def test_shortened_names_are_read_as_the_engine_reads_them(words: str, name: str) -> None:
    assert layout(load("qwen3-8b"), gpus(8), words).name == name


@pytest.mark.parametrize("words", ["--max-num-seqs 1k", "--max-model-len 1.5K", "--block-size 0", "-dcp two"])
def test_what_the_engine_would_refuse_is_refused_before(words: str) -> None:
    assert refused(load("qwen3-8b"), gpus(8), words).id == "usage"


def test_more_memory_for_the_engine_is_told() -> None:
    made = layout(load("gpt-oss-120b"), h100(1))
    assert made.arguments == {"gpu-memory-utilization": "0.95"} and made.doubt is None
    assert "fits with 95%" in made.because

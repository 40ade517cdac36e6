"""The cache's figures beside those of vLLM's own planner, which runs here as it does in the engine."""

import json
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.memory.kv import Request, blocks, largest_len, tokens
from nimctl.core.memory.kv_blocks import hybrid_block
from nimctl.core.memory.kv_groups import groups
from nimctl.core.memory.kv_specs import ChunkedLocal, FullAttention, Indexer, Latent, SlidingWindow, Spec, State
from nimctl.core.memory.ranks import stage_layers
from tests.lib.kv_shapes import CASES, GIB, MIXED, OSS, Case, Layers, gpt_oss, qwen3_next, qwen3_next_block

pytestmark = [pytest.mark.engine]
PLANNER = Path(__file__).parents[3] / "lib" / "engine_kv_plan.py"


def mixed_block(name: str) -> int:
    if name == "latent and states":
        net = qwen3_next()[0][0]
        assert isinstance(net, State)
        return hybrid_block(1152, net, tensor=1, block=16, latent=True)
    return qwen3_next_block(1) if name == "state and unequal attention" else 16


def shape(
    name: str,
    layers: Layers,
    tensor: int = 1,
    available: tuple[int, ...] = (20 * GIB,),
    request: Request = OSS,
    hybrid: bool = True,
) -> Case:
    stages = stage_layers(len(layers), len(available))
    return Case(name, layers, mixed_block(name), available, request, 0, 0, 0, tensor, stages, hybrid)


SHAPES = [
    *(replace(case, stages=case.stages or (range(len(case.layers)),)) for case in CASES),
    *(shape(name, layers, tensor) for name, (layers, tensor) in MIXED.items()),
    *(
        replace(shape(name, layers, tensor, (3 * GIB, 2 * GIB)), name=f"{name}, two stages")
        for name, (layers, tensor) in MIXED.items()
    ),
    shape("gpt-oss over three stages", gpt_oss(36), available=(2 * GIB, GIB, 3 * GIB)),
    shape("gpt-oss without the hybrid manager", gpt_oss(36), hybrid=False),
    shape("no room for a token", gpt_oss(36), available=(2**20,)),
    shape("less than the whole context", gpt_oss(36), available=(GIB,)),
    replace(
        shape("states without prefix caching", qwen3_next(), request=Request(65536, 16384, aligned_states=False)),
        block=qwen3_next_block(1),
    ),
    *(
        replace(shape(f"states of {drafts} drafts", []), layers=layers, stages=(range(len(layers)),), block=1056)
        for drafts in (1, 3)
        for layers in [
            [
                tuple(replace(s, speculative=drafts) if isinstance(s, State) else s for s in specs)
                for specs in qwen3_next()
            ]
        ]
    ),
]


def at_random(number: int) -> Case:
    """A model of up to three kinds of layers in a pattern, on up to three stages; the same for the same number."""
    of = random.Random(number)
    heads, size, tensor = of.choice([2, 4, 8, 16]), of.choice([64, 80, 96, 128, 192, 256]), of.choice([1, 2, 4, 8])
    dtype, block = of.choice(["bfloat16", "fp8"]), of.choice([16, 32, 64, 128])
    kinds: list[Spec] = [
        FullAttention(heads, size, size, dtype),
        FullAttention(heads, size, of.choice([64, 128, size]), "bfloat16"),
        SlidingWindow(heads, size, size, dtype, of.choice([128, 512, 4096])),
        SlidingWindow(of.choice([2, heads, 16]), of.choice([size, 128]), size, dtype, 1024),
        ChunkedLocal(heads, size, size, dtype, of.choice([2048, 8192])),
        Latent(of.choice([320, 576]), of.choice([dtype, "fp8_ds_mla"])),
        Indexer(),
        State(((4096, 3), (32, of.choice([64, 128]), 128)), ("bfloat16", "float32"), of.choice([0, 0, 2])),
    ]
    pattern = [of.choice(kinds) for _ in range(of.randint(1, 3))]
    pattern = [spec for spec in pattern for _ in range(of.choice([1, 1, 2, 5]))]
    layers: Layers = [(pattern[layer % len(pattern)],) for layer in range(of.randint(len(pattern), 80))]
    stages = stage_layers(len(layers), min(of.randint(1, 3), len(layers)))
    available = tuple(of.randint(1, 60) * GIB // 2 for _ in stages)
    windows = any(isinstance(spec, SlidingWindow | ChunkedLocal) for spec in pattern)
    request = Request(
        of.randint(100, 300_000),
        of.choice([2048, 8192, 16384, 24576]),
        1 if windows else of.choice([1, 1, 2, 8]),
        aligned_states=of.random() < 0.7,
    )
    return Case(f"random {number}", layers, block, available, request, 0, 0, 0, tensor, stages, of.random() < 0.9)


RANDOM = [at_random(number) for number in range(300)]


def on_a_rank(spec: Spec, tensor: int) -> dict[str, Any]:
    """What the engine's model would tell the planner on one rank."""
    told = {"kind": type(spec).__name__, **asdict(spec)}
    if isinstance(spec, State):
        told["shapes"] = [(first // tensor, *rest) for first, *rest in spec.shapes]
    elif "kv_heads" in told:
        told["kv_heads"] = max(1, told["kv_heads"] // tensor)
    return told


def asked(case: Case) -> dict[str, Any]:
    return {
        "layers": [[on_a_rank(spec, case.tensor) for spec in specs] for specs in case.layers],
        "stages": [(stage.start, stage.stop) for stage in case.stages],
        "block": case.block,
        "available": case.available,
        "tensor": case.tensor,
        "hybrid": case.hybrid,
        **asdict(case.request),
    }


@pytest.fixture(scope="module")
def planned() -> dict[str, dict[str, Any]]:
    """The planner's answer to each shape, all from one process."""
    question = json.dumps([asked(case) for case in [*SHAPES, *RANDOM]])
    argv = [sys.executable, PLANNER]
    done = subprocess.run(argv, input=question, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    # The engine may log on the same stream; the answer is the last line.
    return {
        case.name: answer
        for case, answer in zip([*SHAPES, *RANDOM], json.loads(done.stdout.splitlines()[-1]), strict=True)
    }


def ours(case: Case) -> dict[str, Any]:
    try:
        found = groups(case.layers, case.block, case.tensor, hybrid=case.hybrid)
    except ValueError:
        return {"refused": "kinds"}
    longest = largest_len(case.available, found, case.request, case.stages)
    if longest == 0:
        return {"refused": "memory"}
    count = blocks(case.available, found, case.stages)
    return {
        "largest_len": longest,
        "blocks": count,
        "tokens": tokens(count, found, replace(case.request, max_len=longest)),
        "groups": sorted(sum(member.layer in case.stages[0] for member in group.members) for group in found),
    }


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: case.name)
def test_groups_blocks_tokens_and_the_largest_context_are_the_engines(case: Case, planned):
    assert ours(case) == planned[case.name]


def test_one_shape_is_refused_and_some_are_cut(planned):
    refused = [case.name for case in SHAPES if "refused" in planned[case.name]]
    assert refused == ["no room for a token"]
    cut = [case.name for case in SHAPES if planned[case.name].get("largest_len", 0) not in (0, case.request.max_len)]
    assert "less than the whole context" in cut


def test_models_at_random_are_the_engines_too(planned):
    different = [(case.name, mine, planned[case.name]) for case in RANDOM if (mine := ours(case)) != planned[case.name]]
    assert different == []
    refused = [planned[case.name].get("refused") for case in RANDOM]
    assert refused.count(None) >= 200
    assert refused.count("kinds") >= 5

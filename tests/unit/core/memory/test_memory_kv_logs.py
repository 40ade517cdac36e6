"""Published logs: the size of the cache follows from the memory that the same log tells.

The memory is printed with two decimals, so it stands for an interval of 0.01 GiB and for all the blocks in it.
"""

from pathlib import Path
from typing import Any

import pytest

from nimctl.core.memory.kv import Request, blocks, concurrency, slots, tokens
from nimctl.core.memory.kv_groups import Group, groups
from nimctl.core.memory.kv_specs import ChunkedLocal, FullAttention, Latent, SlidingWindow, Spec, State, gated_delta
from nimctl.core.memory.ranks import stage_layers
from nimctl.core.yamlfile import read_yaml

GIB = 2**30
LOGS: list[dict[str, Any]] = read_yaml(Path(__file__).parents[3] / "data" / "plan" / "logs.yaml")
EXACT = [log for log in LOGS if "inexact" not in log]

# Why: the key `inexact` of each.
ANOTHER_RANK_DECIDES = [
    "llmd-meta-llama-llama-3-1-8b-tp1pp2dp1--8192",
    "llmd-meta-llama-llama-3-1-8b-tp1pp4dp1--8192",
    "qwen3-235b-fp8-4xh100",
    "minimax-m2.7-awq-2xgb10",
]
SHAPE_IS_NOT_TOLD = ["qwen36-27b-2x4090-dflash", "qwen38-27b-fp8-2x5090", "qwen38-27b-int4-2x5090"]


def state_of(log: dict[str, Any]) -> State:
    key_heads, value_heads, key_size, value_size, kernel = log["model"]["state"]
    dtype, state_dtype = log["model"]["state_dtypes"]
    return gated_delta(
        key_heads=key_heads,
        value_heads=value_heads,
        key_size=key_size,
        value_size=value_size,
        kernel=kernel,
        dtype=dtype,
        state_dtype=state_dtype,
        speculative=log.get("speculative", 0),
    )


def groups_of(log: dict[str, Any]) -> tuple[Group, ...]:
    model = log["model"]
    layers: list[tuple[Spec, ...]] = []
    if "latent_size" in model:
        layers += [(Latent(model["latent_size"], model["dtype"]),)] * model["full_layers"]
    else:
        heads = (model["kv_heads"], model["head_size"], model["head_size"], model["dtype"])
        layers += [(FullAttention(*heads),)] * model["full_layers"]
        layers += [(SlidingWindow(*heads, model["window"]),)] * model["window_layers"] if "window" in model else []
        layers += [(ChunkedLocal(*heads, model["chunk"]),)] * model["chunk_layers"] if "chunk" in model else []
    if "state" in model:
        layers += [(state_of(log),)] * model["state_layers"]
    return groups(layers, log["block"], log.get("tensor", 1))


def request_of(log: dict[str, Any]) -> Request:
    return Request(
        log["max_len"],
        log.get("batch_tokens", 0),
        log.get("decode_context", 1),
        aligned_states=log.get("aligned_states", True),
    )


def printed(log: dict[str, Any], count: int, found: tuple[Group, ...]) -> int:
    if log["printed"] == "concurrency":
        return tokens(count, found, request_of(log))
    return slots(count, found, log.get("decode_context", 1))


def counts_of(log: dict[str, Any], found: tuple[Group, ...], memories: list[float]) -> range:
    """All numbers of blocks that memory of each stage, printed with two decimals, can stand for."""
    stages = stage_layers(log["model"]["full_layers"], log["pipeline"]) if "pipeline" in log else ()
    lowest = [round((memory - 0.005) * GIB) for memory in memories]
    highest = [round((memory + 0.005) * GIB) for memory in memories]
    return range(blocks(lowest, found, stages), blocks(highest, found, stages) + 1)


def test_the_logs_are_these():
    assert len(LOGS) == len({log["id"] for log in LOGS}) == 71
    assert len(EXACT) == 64
    assert [log["id"] for log in LOGS if "inexact" in log] == ANOTHER_RANK_DECIDES + SHAPE_IS_NOT_TOLD
    # Sizes that rest on what the log itself prints and the model's published shape, or on a default besides.
    guessed = {"block", "model", "speculative"}
    assert len([log for log in EXACT if not guessed & set(log.get("inferred", ()))]) == 54
    assert all(log["link"].startswith("https://") for log in LOGS)


@pytest.mark.parametrize("log", EXACT, ids=lambda log: log["id"])
def test_the_printed_size_follows_from_the_printed_memory(log):
    found = groups_of(log)
    counts = counts_of(log, found, [log["available_kv_gib"]])
    same = [count for count in counts if printed(log, count, found) == log["kv_tokens"]]
    assert same, (log["kv_tokens"], [printed(log, count, found) for count in (counts[0], counts[-1])])
    assert log.get("blocks", same[0]) in same
    if "concurrency" in log and "max_len" in log:
        assert f"{log['concurrency']:.2f}" in {f"{concurrency(count, found, request_of(log)):.2f}" for count in same}


def test_how_wide_the_interval_is_says_what_exact_means():
    """Half of the logs stand for at most these blocks, so that a wrong page or group does not pass by chance."""
    widths = sorted(len(counts_of(log, groups_of(log), [log["available_kv_gib"]])) for log in EXACT)
    assert widths[len(widths) // 2] <= 10
    for log in EXACT:
        found = groups_of(log)
        counts = counts_of(log, found, [log["available_kv_gib"]])
        assert printed(log, counts[-1], found) <= 1.005 * printed(log, counts[0], found)


@pytest.mark.parametrize("log", [log for log in LOGS if log["id"] in ANOTHER_RANK_DECIDES], ids=lambda log: log["id"])
def test_where_another_rank_decides_the_logging_rank_has_room_for_a_little_more(log):
    found = groups_of(log)
    stages = log.get("pipeline", 1)
    count = counts_of(log, found, [log["available_kv_gib"]] * stages)[0]
    assert log["kv_tokens"] < printed(log, count, found) <= 1.015 * log["kv_tokens"]


def test_with_the_memory_of_every_stage_the_smallest_decides():
    [log] = [log for log in LOGS if "stages_gib" in log]
    found = groups_of(log)
    counts = counts_of(log, found, log["stages_gib"])
    assert log["kv_tokens"] in [printed(log, count, found) for count in counts]

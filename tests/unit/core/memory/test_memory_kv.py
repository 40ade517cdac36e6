"""The cache's bytes, groups, blocks and tokens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.memory.kv import (
    Request,
    blocks,
    bytes_per_token,
    fits,
    in_flight_tokens,
    largest_len,
    request_blocks,
    slots,
    tokens,
)
from nimctl.core.memory.kv_blocks import default_block, hybrid_block
from nimctl.core.memory.kv_groups import block_bytes, groups
from nimctl.core.memory.kv_specs import (
    ChunkedLocal,
    FullAttention,
    SlidingWindow,
    State,
    gated_delta,
    mamba2,
    page_bytes,
    state_bytes,
)
from nimctl.core.memory.ranks import Parallel, stage_layers
from tests.lib.kv_shapes import CASES, GIB, MIXED, Case, deepseek_v32, full, gpt_oss, kimi, qwen3_next, sliding


# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/kv_cache_interface.py (MLAAttentionSpec)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", 70_272), ("fp8", 35_136), ("fp8_ds_mla", 40_016), ("nvfp4_ds_mla", 21_472)],
)
@pytest.mark.parametrize("tensor", [1, 8])
def test_bytes_of_a_token_of_kimi_are_the_same_on_every_tensor_rank(dtype, expected, tensor):
    assert bytes_per_token(kimi(dtype), Parallel(tensor=tensor)) == expected


def test_bytes_of_a_token_of_other_models():
    assert bytes_per_token(deepseek_v32("bfloat16")) == 78_324
    assert bytes_per_token(deepseek_v32("fp8_ds_mla")) == 48_068
    assert bytes_per_token([(full(8, 128),)] * 32) == 131_072
    assert bytes_per_token([(full(8, 128),)] * 32, Parallel(tensor=16)) == 16_384  # a head a rank, copied
    assert bytes_per_token(kimi(), Parallel(tensor=8, pipeline=2)) == 31 * 1152
    assert bytes_per_token([(full(8, 128, "fp8_per_token_head"),)]) == 8 * (256 + 8)
    assert bytes_per_token([(full(8, 128, "int4_per_token_head"),)]) == 8 * (128 + 8)
    assert bytes_per_token([(full(8, 128, "nvfp4"),)]) == 8 * 2 * (64 + 8)
    assert bytes_per_token(qwen3_next()) == 12 * 2048


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_blocks_and_tokens_are_the_planners(case: Case):
    found = groups(case.layers, case.block, case.tensor, hybrid=case.hybrid)
    assert block_bytes(found, case.stages[0] if case.stages else None) == case.bytes_per_block
    count = blocks(case.available, found, case.stages)
    assert count == case.blocks
    assert tokens(count, found, case.request) == case.tokens


def test_kinds_of_about_as_many_layers_are_padded_to_the_larger():
    equal = groups(gpt_oss(36), 16)
    assert [(len(group.members), group.padding) for group in equal] == [(18, 0), (18, 0)]
    with_draft = groups([*gpt_oss(36), (full(8, 64),)], 16)
    assert [(len(group.members), group.padding) for group in with_draft] == [(18, 1), (19, 0)]


@pytest.mark.parametrize(
    ("few", "many", "sizes"), [(10, 14, [10, 14]), (10, 15, [10, 8, 7]), (10, 52, [10, *[9] * 4, 8, 8])]
)
def test_the_smaller_kind_gives_the_size_from_half_as_many_again(few, many, sizes):
    found = groups([*[(full(16, 128),)] * few, *[(sliding(16, 128, 1024),)] * many], 16)
    assert [len(group.members) for group in found] == sizes
    assert {len(group.members) + group.padding for group in found} == {max(sizes)}


def test_windows_and_chunks_of_other_sizes_are_other_groups():
    assert [len(group.members) for group in groups(MIXED["two windows"][0], 16)] == [16, 16]
    assert [len(group.members) for group in groups(MIXED["one window"][0], 16)] == [30]
    chunked = [(ChunkedLocal(8, 128, 128, "bfloat16", 4096 << layer % 2),) for layer in range(8)]
    assert [len(group.members) for group in groups(chunked, 16)] == [4, 4]
    assert [len(group.members) for group in groups(chunked[::2], 16)] == [4]


def test_layers_are_dealt_so_that_each_stage_has_part_of_every_group():
    layers = [(full(8, 128),) if layer % 3 == 0 else (sliding(8, 128, 1024),) for layer in range(12)]
    found = groups(layers, 16)
    assert len(found) == 3
    halves = stage_layers(12, 2)
    assert [[group.bytes_per_block(half) for group in found] for half in halves] == [[2 * 65_536] * 3] * 2


def test_without_the_hybrid_manager_windows_save_nothing():
    found = groups(gpt_oss(24), 16, hybrid=False)
    assert [len(group.members) for group in found] == [24]
    assert request_blocks(found, Request(131072, 16384)) == 131072 // 16
    with pytest.raises(ValueError, match="hybrid"):
        groups(qwen3_next(), 544, hybrid=False)


def test_blocks_of_the_longest_request():
    request = Request(131072, 16384)
    full_blocks, sliding_blocks = 8192, -(-(127 + 16384) // 16) + 1
    assert request_blocks(groups(gpt_oss(36), 16), request) == full_blocks + sliding_blocks
    assert request_blocks(groups(kimi(), 16), replace(request, decode_context=8)) == 1024
    states = groups(qwen3_next(), 544)
    assert request_blocks(states, Request(262144)) == 482 + 3 * 2
    assert request_blocks(states, Request(262144, aligned_states=False)) == 482 + 3
    chunks = groups(MIXED["chunks"][0], 16)
    assert request_blocks(chunks, Request(131072, 16384)) == 8192 + 3 * (8192 + 16384) // 16
    assert request_blocks(chunks, Request(4096, 16384)) == 4 * 256
    drafted = replace(qwen3_next()[0][0], speculative=3, checkpoints=1)
    assert request_blocks(groups([(drafted,)], 544), Request(262144)) == 2 + 3 + 1
    retained = request_blocks(groups([(sliding(8, 128, 1024),)], 16), Request(131072, 8192, retained=16))
    assert retained == -(-(1023 + 16 + 8192) // 16) + 1


def test_windows_do_not_go_with_decode_context_parallelism():
    with pytest.raises(ValueError, match="decode-context"):
        request_blocks(groups(gpt_oss(36), 16), Request(131072, 16384, decode_context=2))


def test_pages_are_made_equal_by_larger_blocks_or_by_padding():
    twice = groups(MIXED["pages of twice the size"][0], 16)
    assert {type(member.spec): (member.block, member.page) for group in twice for member in group.members} == {
        SlidingWindow: (32, 131_072),
        FullAttention: (16, 131_072),
    }
    padded = groups(MIXED["pages that do not divide"][0], 16)
    assert {member.page for group in padded for member in group.members} == {16 * 8 * 2 * 128 * 2}
    assert {member.block for group in padded for member in group.members} == {16}


def test_pages_of_latents_are_not_padded():
    promoted = groups(MIXED["latent and a window that fits no page"][0], 16)
    assert [len(group.members) for group in promoted] == [62]
    assert request_blocks(promoted, Request(4096)) == 256
    with pytest.raises(ValueError, match="equal"):
        groups([*kimi(), (qwen3_next()[0][0],)], 16)


def test_states_are_divided_among_ranks_and_blocks_hold_one():
    net = qwen3_next()[0][0]
    assert isinstance(net, State)
    assert [state_bytes(net, tensor) for tensor in (1, 2, 4, 8)] == [1_097_728, 548_864, 274_432, 137_216]
    assert [hybrid_block(max(1, 2 // t) * 1024, net, tensor=t, block=16) for t in (1, 2, 4, 8)] == [544, 544, 272, 144]
    assert page_bytes(net, 544) == page_bytes(net, 16) == 1_097_728
    with pytest.raises(ValueError, match="divide"):
        state_bytes(net, 3)


def test_the_hybrid_block_of_published_logs():
    """Qwen3.6-35B-A3B with an fp8 cache, Qwen3.6-27B on two ranks with drafts: see tests/data/plan/logs.yaml."""
    shape = {"key_size": 128, "value_size": 128, "kernel": 4, "dtype": "bfloat16", "state_dtype": "float32"}
    small = gated_delta(key_heads=16, value_heads=32, **shape)
    assert hybrid_block(2 * 512, small, tensor=1, block=16) == 2096
    drafted = gated_delta(key_heads=16, value_heads=48, speculative=3, **shape)
    assert hybrid_block(2 * 512, drafted, tensor=2, block=16) == 1600
    assert (
        hybrid_block(1152, gated_delta(key_heads=32, value_heads=32, **shape), tensor=2, block=16, latent=True) == 1024
    )
    assert hybrid_block(2048, small, tensor=1, block=4096) == 4096


def test_groups_of_mamba_are_repeated_for_ranks_that_cannot_divide_them():
    shape = {"heads": 128, "head_size": 64, "groups": 8, "state_size": 128, "kernel": 4}
    dtypes = {"dtype": "bfloat16", "state_dtype": "float32"}
    one, wide = (mamba2(**shape, **dtypes, tensor=tensor) for tensor in (8, 16))
    assert one.shapes == ((8192 + 2 * 8 * 128, 3), (128, 64, 128))
    assert wide.shapes == ((8192 + 2 * 16 * 128, 3), (128, 64, 128))
    assert state_bytes(wide, 16) == 768 * 3 * 2 + 8 * 64 * 128 * 4


# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/platforms/cuda.py and cpu.py
@pytest.mark.parametrize(
    ("attention", "dtype", "device", "capability", "expected"),
    [
        ("latent", "bfloat16", "cuda", (9, 0), 16),
        ("latent", "fp8", "cuda", (9, 0), 64),
        ("latent", "fp8", "cuda", (10, 0), 32),
        ("latent", "bfloat16", "cuda", (10, 3), 32),
        ("latent", "bfloat16", "cuda", (8, 0), 16),
        ("latent", "bfloat16", "cuda", (12, 0), 16),
        ("sparse", "bfloat16", "cuda", (9, 0), 64),
        ("sparse", "fp8_ds_mla", "cuda", (10, 0), 64),
        ("full", "bfloat16", "cuda", (9, 0), 16),
        ("full", "fp8", "cuda", (10, 0), 16),
        ("full", "bfloat16", "cpu", (0, 0), 128),
        ("latent", "bfloat16", "cpu", (0, 0), 16),
        ("latent", "bfloat16", "cpu-amx", (0, 0), 128),
        ("full", "bfloat16", "cpu-amx", (0, 0), 128),
    ],
)
def test_default_block(attention, dtype, device, capability, expected):
    assert default_block(attention, dtype, device=device, capability=capability) == expected


def test_what_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="sparse"):
        default_block("sparse", "bfloat16", device="cpu")
    with pytest.raises(ValueError, match="auto"):
        bytes_per_token([(full(8, 128, "auto"),)])
    with pytest.raises(ValueError, match="no layer"):
        blocks([GIB], groups([(), ()], 16))


def test_a_stage_without_a_cache_limits_nothing_and_no_memory_gives_no_blocks():
    found = groups([(full(8, 128),), (full(8, 128),), ()], 16)
    assert blocks([GIB, 1], found, [range(2), range(2, 3)]) == blocks([GIB], found) == 8192
    assert blocks([-GIB], found) == 0
    assert largest_len([-GIB], found, Request(8192)) == 0
    with pytest.raises(ValueError, match="zip"):
        blocks([GIB], found, [range(2), range(2, 3)])


def test_batches_under_way():
    assert in_flight_tokens(8192) == 16384
    assert in_flight_tokens(8192, 2) == 24576
    assert in_flight_tokens(8192, asynchronous=False) == 8192


def test_the_largest_context_is_the_last_that_starts():
    found = groups(kimi(), 16)
    request = Request(262144)
    memory = [5 * GIB]
    longest = largest_len(memory, found, request)
    assert longest == (blocks(memory, found) - 1) * 16 == 76_368
    assert fits(memory, found, replace(request, max_len=longest))
    assert not fits(memory, found, replace(request, max_len=longest + 1))
    assert largest_len([40 * GIB], found, request) == 262144


MODELS = [
    (kimi(), 64, 8),
    ([(full(8, 128),)] * 32, 16, 2),
    (gpt_oss(36), 16, 1),
    (qwen3_next(), 544, 1),
    *((layers, 16, tensor) for name, (layers, tensor) in MIXED.items() if name != "latent and states"),
]
SIZED = st.sampled_from(MODELS).map(lambda model: groups(*model))
MEMORY = st.integers(0, 200 * GIB)
REQUESTS = st.builds(Request, st.integers(1, 1 << 20), st.integers(1, 1 << 16), aligned_states=st.booleans())


@given(SIZED, MEMORY, MEMORY, REQUESTS)
def test_more_memory_never_holds_fewer_tokens(found, one, other, request):
    less, more = sorted((one, other))
    counts = blocks([less], found), blocks([more], found)
    assert counts[0] <= counts[1]
    assert tokens(counts[0], found, request) <= tokens(counts[1], found, request)
    assert slots(counts[0], found) <= slots(counts[1], found)
    assert largest_len([less], found, request) <= largest_len([more], found, request)


@given(SIZED, MEMORY, REQUESTS, st.integers(1, 1 << 20))
def test_a_longer_request_never_holds_fewer_blocks_nor_fits_where_a_shorter_does_not(found, memory, request, length):
    short, long = sorted((request, replace(request, max_len=length)), key=lambda each: each.max_len)
    assert request_blocks(found, short) <= request_blocks(found, long)
    assert fits([memory], found, short) or not fits([memory], found, long)


@given(SIZED, MEMORY, REQUESTS, st.integers(1, 40), st.integers(1, 40))
def test_tokens_do_not_shrink_with_the_length_of_whole_blocks(found, memory, request, one, other):
    """Between whole blocks they do, as the last block of each request is not full; one token is the float's."""
    whole = max(group.block for group in found)
    short, long = (replace(request, max_len=times * whole) for times in sorted((one, other)))
    count = blocks([memory], found)
    assert tokens(count, found, short) <= tokens(count, found, long) + 1


@given(SIZED, MEMORY, REQUESTS)
def test_the_largest_context_fits_and_the_next_does_not(found, memory, request):
    longest = largest_len([memory], found, request)
    assert longest == 0 or fits([memory], found, replace(request, max_len=longest))
    assert longest == request.max_len or not fits([memory], found, replace(request, max_len=longest + 1))


@given(SIZED)
def test_every_layer_is_in_one_group(found):
    held = [(member.layer, member.spec) for group in found for member in group.members]
    assert len({layer for layer, _ in held}) == len(held)
    assert len({group.bytes_per_block() // len(group.members) for group in found if len(found) > 1}) <= 1

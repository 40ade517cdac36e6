"""Models as the cache sees them, with what vLLM 0.32's own planner says of them on a given amount of memory."""

from dataclasses import dataclass

from nimctl.core.memory.kv import Request
from nimctl.core.memory.kv_blocks import hybrid_block
from nimctl.core.memory.kv_specs import (
    ChunkedLocal,
    FullAttention,
    Indexer,
    Latent,
    SlidingWindow,
    Spec,
    gated_delta,
    token_bytes,
)
from nimctl.core.memory.ranks import stage_layers

GIB = 2**30
Layers = list[tuple[Spec, ...]]


@dataclass(frozen=True)
class Case:
    """A model on ranks; the last three are the planner's: bytes of a block (first stage), blocks, tokens."""

    name: str
    layers: Layers
    block: int
    available: tuple[int, ...]
    request: Request
    bytes_per_block: int
    blocks: int
    tokens: int
    tensor: int = 1
    stages: tuple[range, ...] = ()
    hybrid: bool = True


def full(heads: int, size: int, dtype: str = "bfloat16") -> FullAttention:
    return FullAttention(heads, size, size, dtype)


def sliding(heads: int, size: int, window: int, dtype: str = "bfloat16") -> SlidingWindow:
    return SlidingWindow(heads, size, size, dtype, window)


def kimi(dtype: str = "bfloat16") -> Layers:
    return [(Latent(576, dtype),)] * 61


def deepseek_v32(dtype: str) -> Layers:
    return [(Latent(576, dtype), Indexer())] * 61


def gpt_oss(layers: int) -> Layers:
    return [(sliding(8, 64, 128),) if layer % 2 == 0 else (full(8, 64),) for layer in range(layers)]


def qwen3_next() -> Layers:
    net = gated_delta(
        key_heads=16,
        value_heads=32,
        key_size=128,
        value_size=128,
        kernel=4,
        dtype="bfloat16",
        state_dtype="bfloat16",
    )
    return [(full(2, 256),) if layer % 4 == 3 else (net,) for layer in range(48)]


def qwen3_next_block(tensor: int) -> int:
    layers = qwen3_next()
    return hybrid_block(token_bytes(layers[3][0], tensor), layers[0][0], tensor=tensor, block=16)


LONG = Request(262144, 16384)
OSS = Request(131072, 16384)

# Figures: vllm/v1/core/kv_cache_utils.py of 0.32.0, get_kv_cache_configs and get_kv_cache_capacity run on these shapes
CASES = [
    Case("kimi TP8, block 64", kimi(), 64, (int(46.80 * GIB),), LONG, 4_497_408, 11_173, 715_072, 8),
    Case("kimi TP8, block 16", kimi(), 16, (int(46.80 * GIB),), LONG, 1_124_352, 44_693, 715_088, 8),
    Case("kimi TP8, DCP8", kimi(), 16, (int(46.80 * GIB),), Request(262144, 16384, 8), 1_124_352, 44_693, 5_720_704, 8),
    Case("kimi TP4, fp8", kimi("fp8"), 32, (40 * GIB,), Request(262144, 32768), 1_124_352, 38_199, 1_222_368, 4),
    Case(
        "kimi TP8 PP2",
        kimi(),
        16,
        (27 * GIB, 26 * GIB),
        Request(262144, 24576),
        571_392,
        50_486,
        807_776,
        8,
        stage_layers(61, 2),
    ),
    Case(
        "deepseek v3.2, fp8_ds_mla",
        deepseek_v32("fp8_ds_mla"),
        64,
        (40 * GIB,),
        Request(163840, 16384),
        3_076_352,
        13_961,
        893_504,
        8,
    ),
    Case(
        "deepseek v3.2, bf16",
        deepseek_v32("bfloat16"),
        64,
        (40 * GIB,),
        Request(163840, 16384),
        5_012_736,
        8_568,
        548_352,
        8,
    ),
    Case("llama 8b", [(full(8, 128),)] * 32, 16, (50 * GIB,), OSS, 2_097_152, 25_600, 409_600),
    Case("qwen3 235b TP8", [(full(4, 128),)] * 94, 16, (40 * GIB,), Request(40960, 16384), 770_048, 55_775, 892_400, 8),
    Case("gpt-oss 120b", gpt_oss(36), 16, (8 * GIB,), OSS, 589_824, 14_563, 206_916),
    Case("gpt-oss 20b", gpt_oss(24), 16, (60 * GIB,), OSS, 393_216, 163_840, 2_327_895),
    Case("gpt-oss 120b, draft", [*gpt_oss(36), (full(8, 64),)], 16, (8 * GIB,), OSS, 622_592, 13_797, 196_032),
    Case("qwen3-next", qwen3_next(), qwen3_next_block(1), (20 * GIB,), LONG, 13_369_344, 1_606, 862_711),
    Case("qwen3-next TP2", qwen3_next(), qwen3_next_block(2), (20 * GIB,), LONG, 6_684_672, 3_212, 1_725_423, 2),
    Case("qwen3-next TP4", qwen3_next(), qwen3_next_block(4), (20 * GIB,), LONG, 3_342_336, 6_425, 1_736_366, 4),
    Case("qwen3-next TP8", qwen3_next(), qwen3_next_block(8), (20 * GIB,), LONG, 1_769_472, 12_136, 1_741_313, 8),
]

# Shapes that no table has: pages that do not divide, windows of several kinds, drafts of another kind, stages of a mix.
MIXED = {
    "chunks": (
        [(ChunkedLocal(8, 128, 128, "bfloat16", 8192),) if i % 4 < 3 else (full(8, 128),) for i in range(48)],
        4,
    ),
    "pages of twice the size": ([(sliding(8, 128, 1024),) if i % 6 < 5 else (full(4, 512),) for i in range(30)], 1),
    "pages that do not divide": ([(sliding(8, 96, 1024),) if i % 3 < 2 else (full(8, 128),) for i in range(30)], 1),
    "two windows": ([(sliding(8, 128, 512 * (1 + i % 2)),) for i in range(32)], 1),
    "one window": ([(sliding(2, 128, 4096),)] * 30, 1),
    "window, unequal heads": ([(sliding(2 << i % 2, 128, 4096),) for i in range(30)], 1),
    "heads of keys and values": ([(FullAttention(4, 192, 128, "bfloat16"),)] * 70, 1),
    "latent and a full draft": ([*kimi(), (full(64, 128),)], 8),
    "latent and a window that fits no page": ([*kimi(), (sliding(8, 128, 2048),)], 1),
    "latent and states": ([(qwen3_next()[0][0],) if i % 4 < 3 else (Latent(576, "bfloat16"),) for i in range(27)], 1),
    "state and unequal attention": ([*qwen3_next(), (full(8, 128),)], 1),
    "cache of layers shared": ([(full(8, 128),) if i < 20 else () for i in range(35)], 1),
    "per-token scales": ([(full(8, 128, "fp8_per_token_head"),)] * 32, 2),
    "four bits": ([(full(8, 128, "nvfp4"),)] * 32, 2),
}

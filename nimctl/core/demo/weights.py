"""The demo model's tensors: their names and shapes as published, and their bytes, the same on every machine.

A random tensor is `SHAKE-256(seed, name)`, one byte a weight; a table turns each byte into one of 256 Gaussian
quantiles, in bfloat16. The scale is 1 / sqrt(inputs), so activations keep size 1 through every product; only the
matrices that write into the residual stream are damped, so that the phrase (see `phrase`) is never drowned.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from statistics import NormalDist

from nimctl.core.demo.config import TEXT, VISION
from nimctl.core.demo.phrase import STANDING, transitions
from nimctl.core.demo.tokenizer import token_id, vocab_size

_SEED = b"nimctl demo model 1\0"
_BF16_ONE = b"\x80\x3f"

# Share of an embedding (root mean square 1) along the direction that all tokens have in common, along a token's own
# direction, and, for tokens that have none, along the direction of the rest and in random directions.
_COMMON, _OWN, _REST, _RANDOM = 0.5, math.sqrt(0.75), 0.7, math.sqrt(0.26)
_NOISE = 0.5  # standard deviation of the logits that nothing is engraved for
# Damping of the matrices that write into the residual stream: each adds about 0.15 to a stream of size 1.
_ATTENTION_GAIN, _MLP_GAIN, _EXPERT_GAIN = 0.15, 0.25, 0.125


@dataclass(frozen=True)
class Tensor:
    """One tensor of the checkpoint; `content` makes its little-endian bytes when they are needed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Callable[[], bytes | bytearray]

    @property
    def nbytes(self) -> int:
        """Size of the content in bytes."""
        return math.prod(self.shape) * (4 if self.dtype == "F32" else 2)


@cache
def _quantiles() -> tuple[float, ...]:
    return tuple(NormalDist().inv_cdf((index + 0.5) / 256) for index in range(256))


def _bf16(values: list[float]) -> bytes:
    """Values as little-endian bfloat16: the upper halves of their float32."""
    single = struct.pack(f"<{len(values)}f", *values)
    halves = bytearray(len(single) // 2)
    halves[0::2], halves[1::2] = single[2::4], single[3::4]
    return bytes(halves)


def _noise(name: str, count: int) -> bytes:
    return hashlib.shake_256(_SEED + name.encode()).digest(count)


def _gaussian(name: str, count: int, scale: float) -> bytearray:
    codes = _noise(name, count)
    table = _bf16([scale * quantile for quantile in _quantiles()])
    content = bytearray(2 * count)
    content[0::2] = codes.translate(table[0::2])
    content[1::2] = codes.translate(table[1::2])
    return content


def _direction(index: int) -> list[float]:
    """Row `index` of the Sylvester-Hadamard matrix: entries 1 and -1, exactly orthogonal to every other row."""
    return [-1.0 if (index & column).bit_count() % 2 else 1.0 for column in range(TEXT.hidden)]


@cache
def _own_directions() -> dict[str | None, int]:
    """Direction of each token that decides its successor: 0 is common to all, 1 (None) is that of all other tokens."""
    owners = dict.fromkeys(step.after for step in transitions() if step.after is not None)
    return {None: 1, **{token: index for index, token in enumerate(owners, start=2)}}


def _embedding(name: str) -> bytes:
    """Rows of the token embedding: the common direction, and the token's own or else the rest's and a random one."""
    quantiles, common, rest = _quantiles(), _direction(0), _direction(1)
    base = [_COMMON * c + _REST * r for c, r in zip(common, rest, strict=True)]
    codes = _noise(name, vocab_size() * TEXT.hidden)
    rows: list[list[float]] = []
    for start in range(0, len(codes), TEXT.hidden):
        row = codes[start : start + TEXT.hidden]
        rows.append([b + _RANDOM * quantiles[code] for b, code in zip(base, row, strict=True)])
    for token, index in _own_directions().items():
        if token is not None:
            rows[token_id(token)] = [_COMMON * c + _OWN * o for c, o in zip(common, _direction(index), strict=True)]
    return b"".join(map(_bf16, rows))


def _output_rows() -> dict[str, list[float]]:
    """Rows of the output matrix that are engraved: a successor's row points along its predecessor's direction."""
    rows: dict[str, list[float]] = {}

    def engrave(token: str, index: int, share: float, logit: float) -> None:
        step = logit / (TEXT.hidden * share)
        row = rows.get(token, [0.0] * TEXT.hidden)
        rows[token] = [old + step * entry for old, entry in zip(row, _direction(index), strict=True)]

    for token, logit in STANDING.items():
        engrave(token, 0, _COMMON, logit)
    for step in transitions():
        engrave(step.then, _own_directions()[step.after], _REST if step.after is None else _OWN, step.logit)
    return rows


def _lm_head(name: str) -> bytes:
    width = 2 * TEXT.hidden
    content = _gaussian(name, vocab_size() * TEXT.hidden, _NOISE / math.sqrt(TEXT.hidden))
    for token, row in _output_rows().items():
        start = token_id(token) * width
        content[start : start + width] = _bf16(row)
    return bytes(content)


def _matrix(name: str, outputs: int, *inputs: int, gain: float = 1.0) -> Tensor:
    fan_in = math.prod(inputs)
    content = partial(_gaussian, name, outputs * fan_in, gain / math.sqrt(fan_in))
    return Tensor(name, "BF16", (outputs, *inputs), content)


def _ones(name: str, size: int) -> Tensor:
    return Tensor(name, "BF16", (size,), lambda: _BF16_ONE * size)


def _small_vector(name: str, size: int) -> Tensor:
    return Tensor(name, "BF16", (size,), partial(_gaussian, name, size, 0.02))


def _router_bias(name: str) -> Tensor:
    """The correction that balances experts: float32 as published, exact binary fractions within 1/8 of zero."""

    def content() -> bytes:
        return struct.pack(f"<{TEXT.experts}f", *((code - 128) / 1024 for code in _noise(name, TEXT.experts)))

    return Tensor(name, "F32", (TEXT.experts,), content)


def _attention(prefix: str) -> Iterator[Tensor]:
    yield _matrix(f"{prefix}.q_a_proj.weight", TEXT.q_lora, TEXT.hidden)
    yield _ones(f"{prefix}.q_a_layernorm.weight", TEXT.q_lora)
    yield _matrix(f"{prefix}.q_b_proj.weight", TEXT.heads * (TEXT.nope + TEXT.rope), TEXT.q_lora)
    yield _matrix(f"{prefix}.kv_a_proj_with_mqa.weight", TEXT.kv_lora + TEXT.rope, TEXT.hidden)
    yield _ones(f"{prefix}.kv_a_layernorm.weight", TEXT.kv_lora)
    yield _matrix(f"{prefix}.kv_b_proj.weight", TEXT.heads * (TEXT.nope + TEXT.value), TEXT.kv_lora)
    yield _matrix(f"{prefix}.o_proj.weight", TEXT.hidden, TEXT.heads * TEXT.value, gain=_ATTENTION_GAIN)


def _gated_mlp(prefix: str, width: int, gain: float) -> Iterator[Tensor]:
    yield _matrix(f"{prefix}.gate_proj.weight", width, TEXT.hidden)
    yield _matrix(f"{prefix}.up_proj.weight", width, TEXT.hidden)
    yield _matrix(f"{prefix}.down_proj.weight", TEXT.hidden, width, gain=gain)


def _experts(prefix: str) -> Iterator[Tensor]:
    yield _matrix(f"{prefix}.gate.weight", TEXT.experts, TEXT.hidden)
    yield _router_bias(f"{prefix}.gate.e_score_correction_bias")
    yield from _gated_mlp(f"{prefix}.shared_experts", TEXT.shared_experts * TEXT.moe_intermediate, _MLP_GAIN)
    for expert in range(TEXT.experts):
        yield from _gated_mlp(f"{prefix}.experts.{expert}", TEXT.moe_intermediate, _EXPERT_GAIN)


def _language_model() -> Iterator[Tensor]:
    table = (vocab_size(), TEXT.hidden)
    embedding, head = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
    yield Tensor(embedding, "BF16", table, partial(_embedding, embedding))
    for layer in range(TEXT.layers):
        prefix = f"language_model.model.layers.{layer}"
        yield _ones(f"{prefix}.input_layernorm.weight", TEXT.hidden)
        yield from _attention(f"{prefix}.self_attn")
        yield _ones(f"{prefix}.post_attention_layernorm.weight", TEXT.hidden)
        if layer < TEXT.dense_layers:
            yield from _gated_mlp(f"{prefix}.mlp", TEXT.dense_intermediate, _MLP_GAIN)
        else:
            yield from _experts(f"{prefix}.mlp")
    yield _ones("language_model.model.norm.weight", TEXT.hidden)
    yield Tensor(head, "BF16", table, partial(_lm_head, head))


def _affine(prefix: str, outputs: int, *inputs: int) -> Iterator[Tensor]:
    yield _matrix(f"{prefix}.weight", outputs, *inputs)
    yield _small_vector(f"{prefix}.bias", outputs)


def _layer_norm(prefix: str, size: int) -> Iterator[Tensor]:
    yield _ones(f"{prefix}.weight", size)
    yield _small_vector(f"{prefix}.bias", size)


def _vision_tower() -> Iterator[Tensor]:
    width, grid = VISION.hidden, VISION.grid
    yield from _affine("vision_tower.patch_embed.proj", width, 3, VISION.patch, VISION.patch)
    position = "vision_tower.patch_embed.pos_emb.weight"
    yield Tensor(position, "BF16", (grid, grid, width), partial(_gaussian, position, grid * grid * width, 0.5))
    for layer in range(VISION.layers):
        prefix = f"vision_tower.encoder.blocks.{layer}"
        yield from _layer_norm(f"{prefix}.norm0", width)
        yield from _affine(f"{prefix}.wqkv", 3 * width, width)
        yield from _affine(f"{prefix}.wo", width, width)
        yield from _layer_norm(f"{prefix}.norm1", width)
        yield from _affine(f"{prefix}.mlp.fc0", VISION.intermediate, width)
        yield from _affine(f"{prefix}.mlp.fc1", width, VISION.intermediate)
    yield from _layer_norm("vision_tower.encoder.final_layernorm", width)


def _projector() -> Iterator[Tensor]:
    merged = VISION.hidden * VISION.merge**2
    yield from _layer_norm("mm_projector.pre_norm", VISION.hidden)
    yield from _affine("mm_projector.proj.0", merged, merged)
    yield from _affine("mm_projector.proj.2", TEXT.hidden, merged)


def tensors() -> tuple[Tensor, ...]:
    """All tensors of the checkpoint in the order of the file; nothing is computed until a content is asked for."""
    return (*_language_model(), *_vision_tower(), *_projector())

"""Which layers share a table of blocks, after the engine's rules: a group takes and frees blocks together. Pure.

All groups draw on one pool, where a block is as wide as the widest group's layers on the rank.
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/core/kv_cache_utils.py (get_kv_cache_groups). Layouts that put
blocks outermost are packed otherwise by the engine and are not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from nimctl.core.memory.kv_specs import (
    ChunkedLocal,
    FullAttention,
    Indexer,
    Latent,
    SlidingWindow,
    Spec,
    State,
    page_bytes,
)

# Two kinds whose layer counts differ by less than this are padded to the larger, else both are cut to the smaller.
PADDED_BELOW = Fraction(3, 2)


@dataclass(frozen=True)
class Cached:
    """What one layer keeps: tokens in a block, and bytes of a block on a rank, padding included."""

    layer: int
    spec: Spec
    block: int
    page: int


@dataclass(frozen=True)
class Group:
    """Layers with one table of blocks. `padding` layers have memory and nothing in it."""

    members: tuple[Cached, ...]
    padding: int = 0

    @property
    def block(self) -> int:
        """Tokens in a block."""
        return self.members[0].block

    def bytes_per_block(self, stage: range | None = None) -> int:
        """Bytes of a block of all its layers, or of those in `stage`."""
        return sum(member.page for member in self.members if stage is None or member.layer in stage)


def groups(layers: Sequence[Sequence[Spec]], block: int, tensor: int = 1, *, hybrid: bool = True) -> tuple[Group, ...]:
    """The groups of a whole model, whose `layers` keep what is told, each nothing, one thing or several.

    Pipeline stages take part of each group, so layers are numbered through, drafts last. `block` is the block size
    in tokens: `default_block`, or `hybrid_block` where states and attention meet. `hybrid=False` is
    `--disable-hybrid-kv-cache-manager`: windows save nothing then. ValueError where the engine would refuse.
    """
    cached = [
        Cached(number, spec, block, page_bytes(spec, block, tensor))
        for number, specs in enumerate(layers)
        for spec in specs
    ]
    if not hybrid:
        cached = _without_windows(cached)
        if cached and not _of_one_type(cached):
            raise ValueError("layers of these kinds need the hybrid cache manager")
    if not cached:
        return ()
    if _of_one_type(cached):
        return (Group(tuple(cached)),)
    unified = _with_equal_pages(cached)
    if unified is not None:
        return _of_equal_size(unified)
    promoted = _without_windows(cached)
    if any(isinstance(one.spec, ChunkedLocal) for one in cached) or not _of_one_type(promoted):
        raise ValueError("the cache pages of these layers cannot be made equal")
    return (Group(tuple(promoted)),)


def block_bytes(found: Sequence[Group], stage: range | None = None) -> int:
    """Bytes of one block of the pool on a rank that holds the layers of `stage`, or all: those of its widest group."""
    return max((group.bytes_per_block(stage) for group in found), default=0)


def _without_windows(cached: list[Cached]) -> list[Cached]:
    """Windows as full attention, where there is full attention beside them."""
    if not any(isinstance(one.spec, FullAttention | Latent | Indexer) for one in cached):
        return cached
    return [
        replace(one, spec=FullAttention(spec.kv_heads, spec.head_size_k, spec.head_size_v, spec.dtype))
        if isinstance(spec := one.spec, SlidingWindow | ChunkedLocal)
        else one
        for one in cached
    ]


def _of_one_type(cached: list[Cached]) -> bool:
    """Whether all need a block for the same tokens, so that one table serves them, whatever their pages measure."""
    first = cached[0]
    if isinstance(first.spec, FullAttention | Latent | Indexer):
        return all(isinstance(one.spec, FullAttention | Latent | Indexer) for one in cached)
    kinds = {_kind(one) for one in cached}
    return len(kinds) == 1


def _kind(one: Cached) -> tuple[object, ...]:
    """What must be equal for layers other than full attention to need the same blocks."""
    spec = one.spec
    if isinstance(spec, SlidingWindow):
        return (SlidingWindow, spec.window)
    if isinstance(spec, ChunkedLocal):
        return (ChunkedLocal, spec.chunk)
    if isinstance(spec, State):
        return (State, spec.speculative, spec.checkpoints, one.page)
    return (FullAttention,)


def _with_equal_pages(cached: list[Cached]) -> list[Cached] | None:
    """Each page as wide as the widest: by more tokens in a block where that comes out even, else by padding.

    None where a page can be neither: latents and index keys are not padded.
    """
    widest = max(one.page for one in cached)
    unified: list[Cached] = []
    for one in cached:
        if one.page == widest or isinstance(one.spec, State):
            unified.append(replace(one, page=widest))
        elif widest % one.page == 0:
            unified.append(replace(one, block=one.block * (widest // one.page), page=widest))
        elif isinstance(one.spec, Latent | Indexer):
            return None
        else:
            unified.append(replace(one, page=widest))
    return unified


def _of_equal_size(cached: list[Cached]) -> tuple[Group, ...]:
    """Groups of equally many layers, some padded; dealt in turn, so that each stage has part of every group."""
    kinds: dict[tuple[Spec, int], list[Cached]] = {}
    for one in cached:
        kinds.setdefault((one.spec, one.block), []).append(one)
    counts = [len(members) for members in kinds.values()]
    size = max(counts) if max(counts) < PADDED_BELOW * min(counts) else min(counts)
    found: list[Group] = []
    for members in kinds.values():
        number = -(-len(members) // size)
        dealt = [members[start::number] for start in range(number)]
        found += [Group(tuple(hand), size - len(hand)) for hand in dealt]
    return tuple(found)

"""Which of a layer's routed experts a rank holds, and what their kernels round sizes up to. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import lcm
from typing import Literal

from nimctl.core.memory.quantisation import ceil_div
from nimctl.core.memory.ranks import Rank
from nimctl.core.memory.tensors import Family

# Names as of vLLM's --moe-backend. INT4 groups get "marlin" everywhere. For MXFP4 it depends on the GPU, and the rule
# of "triton" leaves out what its own layouts add: H100 logs of gpt-oss-20b say 13.64 and 7.01 GiB at TP 1 and 2, where
# it gives 12.82 and 6.52 and "marlin" 13.67 and 7.06, so that is what an unknown one counts as.
# https://github.com/llm-d-incubation/llm-d-planner/tree/d3121e059da88662db39a926a3ead964be97359b/accuracy/results
MoeBackend = Literal["triton", "marlin", "flashinfer_trtllm", "flashinfer_cutlass"]

# What an expert's width and the hidden size are rounded up to: layers/fused_moe/oracle/mxfp4.py, int_wna16.py
_MXFP4_PADDING: Mapping[MoeBackend, tuple[int, int]] = {
    "triton": (64, 1),
    "marlin": (128, 256),
    "flashinfer_trtllm": (128, 256),
    "flashinfer_cutlass": (128, 128),
}
_MARLIN_WIDTH = 64


@dataclass(frozen=True)
class Experts:
    """What a rank holds of the routed experts: one in `ranks` of them whole, or all, `width` wide each."""

    ranks: int
    number: int
    width: int
    hidden: int

    def local(self, count: int) -> int:
        """Experts of `count`; those that do not divide go to the first ranks. layers/fused_moe/expert_map_manager.py"""
        whole, rest = divmod(count, self.ranks)
        return whole + (self.number < rest)


def share_of(rank: Rank, families: Iterable[Family], *, width: int, hidden: int, backend: MoeBackend | None) -> Experts:
    """Whole experts or slices of each, as `--enable-expert-parallel` says; `width` is that of a whole expert."""
    parallel = rank.parallel
    placed = parallel.expert and parallel.expert_ranks > 1
    own = ceil_div(width, 1 if placed else parallel.expert_ranks)
    by_width, by_hidden = _padding(families, backend)
    return Experts(
        ranks=parallel.expert_ranks if placed else 1,
        number=rank.expert,
        width=ceil_div(own, by_width) * by_width,
        hidden=ceil_div(hidden, by_hidden) * by_hidden,
    )


def _padding(families: Iterable[Family], backend: MoeBackend | None) -> tuple[int, int]:
    """Multiples of an expert's width and of the hidden size."""
    packed: dict[str, int] = {}
    for family in families:
        if ".experts" in family.pattern and family.shape:
            if family.pattern.endswith("_proj_blocks"):
                return _MXFP4_PADDING[backend or "marlin"]
            packed.setdefault(family.pattern.rpartition(".")[2], family.shape[-1])
    if "weight_packed" not in packed or backend not in (None, "marlin"):
        return 1, 1
    group = 8 * packed["weight_packed"] // max(1, packed.get("weight_scale", 1))
    return lcm(_MARLIN_WIDTH, max(1, group)), 1

"""Choosing the parallel layout for the GPUs at hand. Pure: the same facts give the same layout on host and container.

The first rule of the house: one node, the largest tensor-parallel size that divides everything that must be divided
and leaves enough GPUs for the pipeline and data ranks that were asked for. The memory account builds on this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.core.gpus import Gpu
from nimctl.core.parallel import NOTHING_ASKED, Sizes
from nimctl.core.recipes import Architecture

# vLLM's default of `--gpu-memory-utilization` in the pinned version:
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/cache.py
MEMORY_UTILIZATION = 0.92


@dataclass(frozen=True)
class Layout:
    """TP x PP x DP ranks on which GPUs (indices), which stay unused, and one sentence why."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    used: tuple[int, ...]
    unused: tuple[int, ...]
    because: str
    data_parallel_size: int = 1

    @property
    def name(self) -> str:
        """The layout in the short form of profile names, such as `tp8-pp1`, and `tp4-pp1-dp2` where it has replicas."""
        replicas = f"-dp{self.data_parallel_size}" if self.data_parallel_size > 1 else ""
        return f"tp{self.tensor_parallel_size}-pp{self.pipeline_parallel_size}{replicas}"

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


CPU_LAYOUT = Layout(1, 1, (), (), "no GPU is used: one rank on the CPU")


def obstacles(architecture: Architecture, tensor_parallel_size: int) -> list[str]:
    """Why vLLM cannot run this architecture at this tensor-parallel size; empty when it can.

    Rules: https://github.com/vllm-project/vllm/tree/v0.32.0/vllm/model_executor/layers (linear.py, fused_moe,
    quantization). A vision tower whose heads do not divide runs data-parallel, so it is no obstacle.
    """
    tp = tensor_parallel_size
    reasons = []
    if architecture.attention_heads % tp:
        reasons.append(f"{architecture.attention_heads} attention heads do not divide by {tp}")
    if architecture.moe_intermediate and (
        architecture.moe_intermediate % tp or (architecture.moe_intermediate // tp) % architecture.quant_group
    ):
        columns, group = architecture.moe_intermediate, architecture.quant_group
        reasons.append(f"an expert's {columns} columns do not divide by {tp} in groups of {group}")
    return reasons


def choose_layout(
    architecture: Architecture | None,
    gpus: Sequence[Gpu],
    *,
    weights_bytes: int | None = None,
    asked: Sizes = NOTHING_ASKED,
) -> Layout:
    """The layout for `gpus` (all healthy), on the CPU when there is none, or every reason why there is no layout.

    Sizes that were asked for are kept. For an unknown architecture (None) a tensor-parallel size of 1 is the only one
    that cannot be wrong. Raises `gpus-mixed` when the GPUs differ in model and `no-layout` when no size divides or when
    the weights alone exceed the memory (a proof, not an estimate: no cache, no activations).
    """
    _refuse_mixed(gpus)
    pipeline, data = asked.pipeline or 1, asked.data or 1
    rejected: list[str] = []
    for tensor in _tensor_sizes(architecture, len(gpus) // (pipeline * data), asked):
        sizes, world = Sizes(tensor, pipeline, data), tensor * pipeline * data
        reasons = [f"it needs {world} GPUs, {len(gpus)} are given"] if gpus and world > len(gpus) else []
        reasons += _indivisible(architecture, sizes) + _too_large(architecture, gpus, sizes, weights_bytes)
        if reasons:
            rejected.append(f"{sizes}: {'; '.join(reasons)}")
            continue
        used, unused = tuple(g.index for g in gpus[:world]), tuple(g.index for g in gpus[world:])
        return Layout(tensor, pipeline, used, unused, _because(sizes, gpus, unused, asked), data)
    raise NimctlError(
        "no-layout",
        f"the model fits these {len(gpus)} GPU(s) in no layout" if gpus else "the model cannot be split like this",
        cause="; ".join(rejected),
        fix="Use more or larger GPUs, a smaller checkpoint, or another --tensor-parallel-size.",
        evidence=rejected,
    )


def _tensor_sizes(architecture: Architecture | None, most: int, asked: Sizes) -> list[int]:
    """The tensor-parallel sizes to try, best first: what was asked, else powers of two up to `most`, at least 1."""
    if asked.tensor or architecture is None:
        return [asked.tensor or 1]
    return [n for n in range(most, 1, -1) if n & (n - 1) == 0] + [1]


def _because(sizes: Sizes, gpus: Sequence[Gpu], unused: tuple[int, ...], asked: Sizes) -> str:
    if not gpus:
        one = sizes == Sizes(1, 1, 1)
        return CPU_LAYOUT.because if one else f"{sizes}: it was asked for; all ranks run on the CPU"
    largest = f"the largest size that divides the model and fits {len(gpus)} GPU(s)"
    why = "it was asked for" if asked.tensor else largest
    spare = f"; GPU {', '.join(map(str, unused))} stays unused" if unused else ""
    return f"{sizes}: {why}{spare}"


def _indivisible(architecture: Architecture | None, sizes: Sizes) -> list[str]:
    if architecture is None:
        return []
    stages = sizes.pipeline or 1
    few = [f"{architecture.layers} layers are fewer than {stages} stages"] if stages > architecture.layers else []
    return obstacles(architecture, sizes.tensor or 1) + few


def _refuse_mixed(gpus: Sequence[Gpu]) -> None:
    models = {g.name or "unknown" for g in gpus}
    if len(models) > 1:
        by_model = {m: [str(g.index) for g in gpus if (g.name or "unknown") == m] for m in sorted(models)}
        best = max(by_model.values(), key=len)
        raise NimctlError(
            "gpus-mixed",
            "the chosen GPUs differ: " + ", ".join(f"{m} ({','.join(i)})" for m, i in by_model.items()),
            cause="tensor parallelism runs at the pace, and within the memory, of the weakest GPU",
            fix=f"Choose one model: --gpus device={','.join(best)}",
        )


def _too_large(
    architecture: Architecture | None, gpus: Sequence[Gpu], sizes: Sizes, weights_bytes: int | None
) -> list[str]:
    split = (sizes.tensor or 1) * (sizes.pipeline or 1)
    world = split * (sizes.data or 1)
    totals = [g.memory_total for g in gpus[:world] if g.memory_total is not None]
    if not weights_bytes or not totals or world > len(gpus):
        return []
    # The engine splits experts over the data-parallel ranks as well; only a dense model is surely copied to each:
    # https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/layers/fused_moe/config.py
    share = weights_bytes / (world if architecture is None or architecture.experts else split)
    smallest = min(totals)
    if share <= smallest * MEMORY_UTILIZATION:
        return []
    usable = f"{MEMORY_UTILIZATION:.0%} of {smallest / 2**30:.1f} GiB may be used"
    return [f"the weights alone are {share / 2**30:.1f} GiB a GPU, {usable}"]

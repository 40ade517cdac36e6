"""Choosing the parallel layout for the GPUs at hand. Pure: the same facts give the same layout on host and container.

The first rule of the house: one node, the largest tensor-parallel size that divides everything that must be divided
and is not larger than the number of GPUs. Pipeline stages across nodes, data and expert parallelism and the memory
account build on this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.core.gpus import Gpu
from nimctl.core.recipes import Architecture

# vLLM's default of `--gpu-memory-utilization` in the pinned version:
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/cache.py
MEMORY_UTILIZATION = 0.92


@dataclass(frozen=True)
class Layout:
    """TP ranks on which GPUs (indices), which stay unused, and one sentence why."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    used: tuple[int, ...]
    unused: tuple[int, ...]
    because: str

    @property
    def name(self) -> str:
        """The layout in the short form of profile names, such as `tp8-pp1`."""
        return f"tp{self.tensor_parallel_size}-pp{self.pipeline_parallel_size}"

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


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
    architecture: Architecture, gpus: Sequence[Gpu], *, weights_bytes: int | None = None, asked: int | None = None
) -> Layout:
    """The layout for `gpus` (all healthy), or every reason why there is none.

    `asked` fixes the tensor-parallel size. Raises `gpus-mixed` when the GPUs differ in model and `no-layout` when no
    size divides or when the weights alone exceed the memory (a proof, not an estimate: no cache, no activations).
    """
    _refuse_mixed(gpus)
    sizes = [asked] if asked else [n for n in range(len(gpus), 0, -1) if n & (n - 1) == 0]
    rejected: list[str] = []
    for size in sizes:
        reasons = [f"it needs {size} GPUs, {len(gpus)} are given"] if size > len(gpus) else []
        reasons += obstacles(architecture, size) + _too_large(gpus, size, weights_bytes)
        if reasons:
            rejected.append(f"TP={size}: {'; '.join(reasons)}")
            continue
        used = tuple(g.index for g in gpus[:size])
        unused = tuple(g.index for g in gpus[size:])
        why = "it was asked for" if asked else f"the largest size that divides the model and fits {len(gpus)} GPU(s)"
        spare = f"; GPU {', '.join(map(str, unused))} stays unused" if unused else ""
        return Layout(size, 1, used, unused, f"TP={size}: {why}{spare}")
    raise NimctlError(
        "no-layout",
        f"the model fits these {len(gpus)} GPU(s) in no layout",
        cause="; ".join(rejected) or "there is no GPU",
        fix="Use more or larger GPUs, a smaller checkpoint, or another --tensor-parallel-size.",
        evidence=rejected,
    )


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


def _too_large(gpus: Sequence[Gpu], size: int, weights_bytes: int | None) -> list[str]:
    totals = [g.memory_total for g in gpus[:size] if g.memory_total is not None]
    if not weights_bytes or not totals or size > len(gpus):
        return []
    share, smallest = weights_bytes / size, min(totals)
    if share <= smallest * MEMORY_UTILIZATION:
        return []
    usable = f"{MEMORY_UTILIZATION:.0%} of {smallest / 2**30:.1f} GiB may be used"
    return [f"the weights alone are {share / 2**30:.1f} GiB a GPU, {usable}"]

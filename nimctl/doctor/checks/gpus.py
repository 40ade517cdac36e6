"""The GPUs: which there are, whether they are well, and whether those that were chosen can hold the model."""

from collections import Counter

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, select
from nimctl.core.layout import MEMORY_UTILIZATION, choose_layout
from nimctl.core.recipes import Recipe
from nimctl.doctor.checks.scope import chosen_gpus, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human


def judge_inventory(facts: HostFacts, needs: Needs) -> list[Finding]:
    """There are GPUs, and each one answers."""
    if reason := no_gpu_wanted(needs) or _no_driver(facts):
        return [skipped("gpus", "GPUs", reason)]
    gpus = facts.gpus.gpus
    if not gpus:
        cause = "the driver lists none: the machine has none, or this is a virtual machine or container without them"
        fix = "Look for them with `lspci -d 10de:`; the demo model also runs without: `nimctl run demo --gpus none`."
        return [failed("gpus", "gpu-missing", "no GPU", cause=cause, fix=fix)]
    findings = []
    if lost := [g for g in gpus if g.error is not None]:
        findings.append(
            failed(
                "gpus",
                "gpu-lost",
                f"{len(lost)} of {len(gpus)} GPUs do not answer: {_indices(lost)}",
                cause="they have fallen off the bus or wait for a reset",
                fix="Look for Xid errors with `sudo dmesg | grep -i NVRM`; reset them (`sudo nvidia-smi --gpu-reset -i "
                f"{_indices(lost)}`) or reboot. Until then leave them out with --gpus.",
                evidence=tuple(f"GPU {g.index}: {g.error}" for g in lost[:16]),
            )
        )
    if healthy := [g for g in gpus if g.error is None]:
        findings.append(passed("gpus", _summary(healthy), evidence=tuple(_describe(g) for g in healthy[:16])))
    return findings


def judge_choice(facts: HostFacts, needs: Needs) -> list[Finding]:
    """What `--gpus` asks for exists, is of one model, and can be used for tensor parallelism."""
    title, spec = "choice of GPUs", needs.gpus or "all"
    if reason := no_gpu_wanted(needs) or _no_driver(facts) or _no_gpu(facts):
        return [skipped("gpu-choice", title, reason)]
    try:
        chosen = select(facts.gpus, spec)
    except NimctlError as error:
        return [failed("gpu-choice", error.id, error.message, cause=error.cause, fix=error.fix)]
    models = Counter(g.name or "unknown" for g in chosen)
    if len(models) > 1:
        most = models.most_common(1)[0][0]
        same = ",".join(str(g.index) for g in chosen if (g.name or "unknown") == most)
        return [
            failed(
                "gpu-choice",
                "gpus-mixed",
                "the chosen GPUs differ: " + ", ".join(f"{n} x {name}" for name, n in models.items()),
                cause="tensor parallelism runs at the pace, and within the memory, of the weakest GPU",
                fix=f"Choose one model: --gpus device={same}",
            )
        ]
    return _oddities(chosen) or [passed("gpu-choice", f"--gpus {spec} means GPU {_indices(chosen)}")]


def _oddities(chosen: tuple[Gpu, ...]) -> list[Finding]:
    findings = []
    if mig := [g for g in chosen if g.mig]:
        findings.append(
            warned(
                "gpu-choice",
                "gpu-mig",
                f"MIG is on for GPU {_indices(mig)}",
                cause="a container gets slices of these GPUs, and vLLM cannot spread a model over slices",
                fix=f"Turn it off for large models: sudo nvidia-smi -i {_indices(mig)} -mig 0",
            )
        )
    if closed := [g for g in chosen if g.compute_mode == "prohibited"]:
        findings.append(
            warned(
                "gpu-choice",
                "gpu-compute-mode",
                f"compute mode of GPU {_indices(closed)} is prohibited",
                cause="no CUDA program may start on a GPU in this mode",
                fix=f"Set it back: sudo nvidia-smi -i {_indices(closed)} -c DEFAULT",
            )
        )
    if worn := [g for g in chosen if g.ecc_uncorrected]:
        findings.append(
            warned(
                "gpu-choice",
                "gpu-ecc",
                f"uncorrected memory errors since the last reboot: GPU {_indices(worn)}",
                cause="the memory of the GPU has lost data",
                fix=f"Reset it (`sudo nvidia-smi --gpu-reset -i {_indices(worn)}`), and replace it when they return.",
                evidence=tuple(f"GPU {g.index}: {g.ecc_uncorrected}" for g in worn[:16]),
            )
        )
    return findings


def judge_memory(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The chosen GPUs are free: vLLM takes 92 % of each, and refuses to start when that much is not free."""
    # https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/worker/utils.py (request_memory)
    title = "GPU memory"
    if reason := no_gpu_wanted(needs) or _no_driver(facts) or _no_gpu(facts):
        return [skipped("gpu-memory", title, reason)]
    chosen = chosen_gpus(facts, needs)
    told = [(g, g.memory_free, g.memory_total) for g in chosen if g.memory_free is not None and g.memory_total]
    if not told:
        return [unknown("gpu-memory", title, cause="the driver does not say how much is free")]
    busy = [(g, free, total) for g, free, total in told if free < MEMORY_UTILIZATION * total]
    if not busy:
        least = min(free / total for _, free, total in told)
        return [passed("gpu-memory", f"GPU memory is free: {least:.0%} or more of each")]
    return [
        warned(
            "gpu-memory",
            "gpu-busy",
            f"memory of GPU {_indices([g for g, _, _ in busy])} is in use",
            cause=f"vLLM reserves {MEMORY_UTILIZATION:.0%} of a GPU and does not start when less is free",
            fix="Stop the programs that hold it, choose other GPUs with --gpus, or lower --gpu-memory-utilization.",
            evidence=tuple(_holders(g, free, total) for g, free, total in busy[:16]),
        )
    ]


def judge_fit(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The weights alone fit into the chosen GPUs in some layout; activations and the key-value cache come on top."""
    title, recipe = "room for the model", needs.recipe
    if recipe is None:
        return [skipped("gpu-fit", title, "no model was named")]
    if reason := no_gpu_wanted(needs) or _no_driver(facts) or _no_gpu(facts):
        return [skipped("gpu-fit", title, reason)]
    chosen = chosen_gpus(facts, needs)
    if not chosen or len({g.name for g in chosen}) > 1:
        return [skipped("gpu-fit", title, "the choice of GPUs is not valid")]
    totals = [g.memory_total for g in chosen if g.memory_total is not None]
    if len(totals) < len(chosen):
        return [unknown("gpu-fit", title, cause="the driver does not say how much memory a GPU has")]
    return [_fit(recipe, chosen, sum(totals))]


def _fit(recipe: Recipe, chosen: tuple[Gpu, ...], total: int) -> Finding:
    weights = recipe.weights_bytes
    have = f"{len(chosen)} x {chosen[0].name or 'GPU'} with {human(total)}"
    if recipe.architecture is not None:
        try:
            layout = choose_layout(recipe.architecture, chosen, weights_bytes=weights)
        except NimctlError as error:
            return failed("gpu-fit", error.id, f"{recipe.name} does not fit {have}", cause=error.cause, fix=error.fix)
        return passed("gpu-fit", f"{recipe.name} can be loaded: {layout.because}")
    if weights is None:
        return unknown("gpu-fit", f"room for {recipe.name}", cause="the size of its weights is not known")
    if weights > total:
        return failed(
            "gpu-fit",
            "no-layout",
            f"{recipe.name} does not fit {have}",
            cause=f"its weights alone are {human(weights)}",
            fix="Use more or larger GPUs, or a smaller model.",
        )
    return passed("gpu-fit", f"the weights of {recipe.name} ({human(weights)}) fit {have}")


def _no_driver(facts: HostFacts) -> str:
    return "" if facts.gpus.state == "ok" else "no driver answers"


def _no_gpu(facts: HostFacts) -> str:
    return "" if any(g.error is None for g in facts.gpus.gpus) else "no GPU answers"


def _indices(gpus: list[Gpu] | tuple[Gpu, ...]) -> str:
    return ",".join(str(g.index) for g in gpus)


def _summary(gpus: list[Gpu]) -> str:
    kinds = Counter((g.name or "GPU of unknown model", g.memory_total) for g in gpus)
    return ", ".join(f"{n} x {name}" + (f" ({human(m)} each)" if m else "") for (name, m), n in kinds.items())


def _describe(gpu: Gpu) -> str:
    memory = f"{human(gpu.memory_total)}" if gpu.memory_total is not None else "memory unknown"
    return (
        f"GPU {gpu.index}: {gpu.name or 'unknown'}, {memory}, {gpu.pci_id or 'PCI id unknown'}, {gpu.uuid or 'no UUID'}"
    )


def _holders(gpu: Gpu, free: int, total: int) -> str:
    held = ", ".join(f"pid {p.pid} ({human(p.memory) if p.memory is not None else '?'})" for p in gpu.processes[:8])
    by = f"; held by {held}" if held else "; the driver names no process (another container or virtual machine?)"
    return f"GPU {gpu.index}: {human(free)} of {human(total)} free{by}"


CHECKS = (
    Check("gpus", "gpu", "every GPU answers", judge_inventory),
    Check("gpu-choice", "gpu", "the GPUs that --gpus asks for exist and are of one model", judge_choice),
    Check("gpu-memory", "gpu", "the memory of the chosen GPUs is free", judge_memory),
    Check("gpu-fit", "gpu", "the weights fit into the chosen GPUs", judge_fit),
)

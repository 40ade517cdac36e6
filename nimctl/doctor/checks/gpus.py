"""The GPUs: which there are, which are meant, and whether the engine can use them as they are."""

from collections import Counter

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, select
from nimctl.doctor.checks import gpu_room
from nimctl.doctor.checks.driver import judge_module
from nimctl.doctor.checks.driver_silent import without_nouveau
from nimctl.doctor.checks.gpu_words import (
    commas,
    lines,
    lost_ones_needed,
    named_one_by_one,
    no_driver,
    no_gpu,
    nothing_to_judge,
    ranges,
    smi,
)
from nimctl.doctor.checks.scope import chosen_gpus, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, Severity, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human
from nimctl.doctor.versions import numbers

# vLLM's CUDA 13 build holds code for 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 11.0 (arm64 only) and 12.0, each of which runs on
# the later ones of its major number but for 8.7 and 10.1, as PyTorch's own list says:
# https://github.com/vllm-project/vllm/blob/main/CMakeLists.txt (CUDA_SUPPORTED_ARCHS) and
# https://github.com/vllm-project/vllm/pull/39878. INT4, FP8 and NVFP4 weights need no more than 7.5 (v0.32.0,
# get_min_capability in vllm/model_executor/layers/quantization).
FLOOR = (7, 5)
_BFLOAT16 = (8, 0)
_NEWEST = (12, 9)
_LEFT_OUT = ((8, 7), (10, 1))


def judge_inventory(facts: HostFacts, needs: Needs) -> list[Finding]:
    """There are GPUs, each one answers, and NVML lists as many as the PCI bus shows.

    A GPU that has fallen off the bus comes back by a reset or a reboot only (Xid 79,
    https://docs.nvidia.com/deploy/xid-errors/); one that another kernel driver holds is invisible to containers.
    """
    if reason := no_gpu_wanted(needs) or no_driver(facts):
        return [skipped("gpus", "GPUs", reason)]
    gpus = facts.gpus.gpus
    if not gpus and any(finding.verdict == "fail" for finding in judge_module(facts, needs)):
        return [skipped("gpus", "GPUs", "the kernel module does not drive them")]
    if not gpus:
        return [_none(facts)]
    findings = [_lost(facts, needs), _hidden(facts)]
    if healthy := [g for g in gpus if g.error is None]:
        findings.append(passed("gpus", _summary(healthy), evidence=lines(healthy, _describe)))
    return [finding for finding in findings if finding is not None]


def _none(facts: HostFacts) -> Finding:
    if _others_are_not_for_this_container(facts):
        title, cause = f"no GPU of the host's {facts.nvidia_kernel.pci_gpus}", "this container was given none"
        fix = "Start the container with `--gpus all`, or run nimctl on the host."
        return failed("gpus", "gpu-missing", title, cause=cause, fix=fix)
    if facts.nvidia_kernel.pci_gpus:
        cause, fix, _ = _why_hidden(facts, facts.nvidia_kernel.pci_gpus)
        title = f"no GPU, although the PCI bus shows {facts.nvidia_kernel.pci_gpus}"
        return failed("gpus", "gpu-missing", title, cause=cause, fix=fix)
    cause = "the driver lists none: the machine has none, or this is a virtual machine or container without them"
    fix = "Look for them with `lspci -d 10de:`; the demo model also runs without: `nimctl run demo --gpus none`."
    return failed("gpus", "gpu-missing", "no GPU", cause=cause, fix=fix)


def _lost(facts: HostFacts, needs: Needs) -> Finding | None:
    gpus = facts.gpus.gpus
    lost = [g for g in gpus if g.error is not None]
    if not lost:
        return None
    # Others that were chosen by name do not need it; `all` and a count mean whichever the host has.
    say = failed if lost_ones_needed(facts, needs) else warned
    return say(
        "gpus",
        "gpu-lost",
        f"{len(lost)} of {len(gpus)} GPUs do not answer: {ranges(lost)}",
        cause="they have fallen off the bus or wait for a reset",
        fix="Look for Xid errors with `sudo dmesg | grep -i NVRM`; reset them "
        f"({smi('--gpu-reset', lost, facts)}) or reboot. Until then leave them out with --gpus.",
        evidence=lines(lost, lambda g: g.error),
    )


def _hidden(facts: HostFacts) -> Finding | None:
    seen, listed = facts.nvidia_kernel.pci_gpus, len(facts.gpus.gpus)
    if seen is None or seen <= listed or _others_are_not_for_this_container(facts):
        return None
    cause, fix, severity = _why_hidden(facts, seen - listed)
    title = f"the PCI bus shows {seen} NVIDIA GPUs, the driver {listed}"
    return warned("gpus", "gpu-hidden", title, cause=cause, fix=fix, severity=severity)


def _others_are_not_for_this_container(facts: HostFacts) -> bool:
    """Whether this is a container, and the driver holds all GPUs of the bus: then it was given some of them only."""
    seen = facts.nvidia_kernel.pci_gpus
    return facts.system.container not in (None, "none") and bool(seen) and seen == facts.nvidia_kernel.pci_gpus_bound


def _why_hidden(facts: HostFacts, missing: int) -> tuple[str, str, Severity]:
    """Cause, fix and severity for GPUs on the bus that NVML does not list."""
    kernel = facts.nvidia_kernel
    unbound = (kernel.pci_gpus or 0) - kernel.pci_gpus_bound if kernel.pci_gpus_bound is not None else None
    if unbound is not None and unbound < missing:
        cause = f"the nvidia module holds all but {unbound}, but some of them did not start"
        return cause, "`sudo dmesg | grep -iE 'NVRM|Xid'` says why; reboot, then check power and seating.", "warning"
    look = "`lspci -nnk -d 10de:` shows which driver holds each"
    modules = kernel.modules or ()
    if "vfio_pci" in modules:
        cause = "the nvidia module does not hold them; vfio-pci is loaded, which gives GPUs to virtual machines"
        return cause, f"{look}; take their ids out of vfio-pci's options if they are meant for this host.", "info"
    if "nouveau" in modules:
        fix = f"Run {without_nouveau(facts)}, and reboot when nothing runs on the other GPUs."
        return "nouveau is loaded, and holds them in the place of NVIDIA's driver", fix, "warning"
    cause = "the nvidia module does not hold them" if unbound else "they did not start, or another driver holds them"
    fix = f"{look}, `sudo dmesg | grep -i NVRM` whether this driver supports them."
    return cause, fix, "warning"


def judge_choice(facts: HostFacts, needs: Needs) -> list[Finding]:
    """What `--gpus` asks for exists, and is of one model: tensor parallelism waits for the weakest GPU.

    https://docs.docker.com/engine/containers/gpu/
    """
    title, spec = "choice of GPUs", needs.gpus or "all"
    if reason := no_gpu_wanted(needs) or no_driver(facts) or no_gpu(facts):
        return [skipped("gpu-choice", title, reason)]
    if named_one_by_one(needs) and lost_ones_needed(facts, needs):
        return [skipped("gpu-choice", title, "a GPU of it does not answer")]
    try:
        chosen = select(facts.gpus, spec)
    except NimctlError as error:
        return [failed("gpu-choice", error.id, error.message, cause=error.cause, fix=error.fix)]
    models = Counter(g.name or "unknown" for g in chosen)
    if len(models) > 1:
        most = models.most_common(1)[0][0]
        return [
            failed(
                "gpu-choice",
                "gpus-mixed",
                "the chosen GPUs differ: "
                + ", ".join(f"{n} x {name.removeprefix('NVIDIA ')}" for name, n in models.items()),
                cause="tensor parallelism runs at the pace, and within the memory, of the weakest GPU",
                fix=f"Choose one model: --gpus device={commas(g for g in chosen if (g.name or 'unknown') == most)}",
            )
        ]
    short = f"--gpus {spec}" if len(spec) <= 30 else "--gpus"
    return [passed("gpu-choice", f"{short} means GPU {ranges(chosen)}")]


def judge_capability(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The engine's build holds code for these GPUs; without, the first kernel ends the run.

    https://github.com/vllm-project/vllm/issues/19185
    """
    title = "compute capability"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-capability", title, reason)]
    chosen = chosen_gpus(facts, needs)
    told = [(g, _pair(g.compute_capability)) for g in chosen]
    if old := [g for g, pair in told if pair is not None and pair < FLOOR]:
        theirs = needs.recipe is not None and needs.recipe.runs == "nim"
        say = warned if theirs else failed
        return [
            say(
                "gpu-capability",
                "gpu-unsupported",
                f"compute capability of GPU {ranges(old)} is below {FLOOR[0]}.{FLOOR[1]}",
                cause="NVIDIA's image may hold no code for them" if theirs else "vLLM's build holds no code for them",
                fix="Use GPUs of the Turing generation (T4, RTX 20) or later, and choose them with --gpus.",
                evidence=lines(old, lambda g: f"{g.name or 'unknown'}, {g.compute_capability}"),
            )
        ]
    if odd := [g for g, pair in told if pair is None or pair > _NEWEST or pair in _LEFT_OUT]:
        have = ", ".join(sorted({str(g.compute_capability or "not told") for g in odd})[:4])
        cause = "the driver does not say it, or it is none of which nimctl knows that the engine holds code for it"
        fix = "Try it within seconds: `nimctl doctor --probe`."
        return [unknown("gpu-capability", f"{title} {have} of GPU {ranges(odd)}", cause=cause, fix=fix)]
    least = min(pair for _, pair in told if pair is not None)
    note = "" if least >= _BFLOAT16 else ": float16 in the place of bfloat16"
    return [passed("gpu-capability", f"{title} {least[0]}.{least[1]} (7.5 or later is needed){note}")]


def judge_mig(facts: HostFacts, needs: Needs) -> list[Finding]:
    """No chosen GPU is cut into slices: a container then gets slices, among which there is no direct access, so that a
    model must fit into one; one that is not cut yet serves nobody.
    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/getting-started-with-mig.html
    """
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-mig", "MIG", reason)]
    chosen = chosen_gpus(facts, needs)
    if all(g.mig is None for g in chosen):
        return [skipped("gpu-mig", "MIG", "these GPUs cannot be cut into slices")]
    findings = []
    if sliced := [g for g in chosen if g.mig]:
        findings.append(_sliced(facts, needs, sliced, all_of_them=len(sliced) == len(chosen)))
    if waiting := [g for g in chosen if None not in (g.mig, g.mig_pending) and g.mig != g.mig_pending]:
        after = "on" if waiting[0].mig_pending else "off"
        findings.append(
            warned(
                "gpu-mig",
                "gpu-mig-pending",
                f"MIG of GPU {ranges(waiting)} will be {after} after the next reset",
                cause="a change of the mode takes hold when the GPU is reset",
                fix=f"With nothing running on them: {smi('--gpu-reset', waiting, facts)}.",
            )
        )
    return findings or [passed("gpu-mig", f"MIG is off for GPU {ranges(g for g in chosen if g.mig is False)}")]


def _sliced(facts: HostFacts, needs: Needs, sliced: list[Gpu], *, all_of_them: bool) -> Finding:
    weights = needs.recipe.weights_bytes if needs.recipe else None
    sizes = [part.memory_total for g in sliced for part in g.mig_devices]
    largest = None if None in sizes else max((s for s in sizes if s is not None), default=None)
    fits = None if largest is None or weights is None else weights <= largest
    evidence = lines(sliced, _slices)
    empty = [g for g in sliced if not g.mig_devices]
    off = f"Turn it off with nothing running on them: {smi('-mig 0', sliced, facts)}."
    if empty and facts.system.container in (None, "none"):  # a container sees its own slices only
        return failed(
            "gpu-mig",
            "gpu-mig",
            f"MIG is on for GPU {ranges(empty)}, without a slice",
            cause="no program can use such a GPU until it is cut into slices or MIG is off",
            fix=f"With nothing on them: {smi('-mig 0', empty, facts)}, or cut them (`sudo nvidia-smi mig -cgi 0 "
            "-C` makes one slice of the whole).",
            evidence=evidence,
        )
    if fits is False and all_of_them and needs.recipe and largest is not None:
        return failed(
            "gpu-mig",
            "gpu-mig",
            f"MIG is on for GPU {ranges(sliced)}: {needs.recipe.name} fits no slice",
            cause=f"a model cannot be spread over slices; the largest has {human(largest)}, "
            f"the weights alone are {human(weights or 0)}",
            fix=off,
            evidence=evidence,
        )
    return warned(
        "gpu-mig",
        "gpu-mig",
        f"MIG is on for GPU {ranges(sliced)}",
        cause="a container gets slices of these GPUs, and vLLM cannot spread a model over slices",
        fix=f"For large models: {off}",
        evidence=evidence,
        severity="info" if fits else "warning",
    )


def _slices(gpu: Gpu) -> str:
    if not gpu.mig_devices:
        return "no slice is seen, and without one no program can use it"
    kinds = Counter((part.name or "slice", part.memory_total) for part in gpu.mig_devices)
    return ", ".join(f"{n} x {name}" + (f" ({human(size)})" if size else "") for (name, size), n in kinds.items())


def _pair(capability: str | None) -> tuple[int, int] | None:
    parts = numbers(capability)
    return None if parts is None else (parts[0], parts[1] if len(parts) > 1 else 0)


def _summary(gpus: list[Gpu]) -> str:
    kinds = Counter((g.name or "GPU of unknown model", g.memory_total) for g in gpus)
    return ", ".join(f"{n} x {name}" + (f" ({human(m)} each)" if m else "") for (name, m), n in kinds.items())


def _describe(gpu: Gpu) -> str:
    memory = "host memory" if gpu.unified_memory else "memory unknown"
    memory = human(gpu.memory_total) if gpu.memory_total is not None else memory
    return f"{gpu.name or 'unknown'}, {memory}, {gpu.pci_id or 'PCI id unknown'}, {gpu.uuid or 'no UUID'}"


CHECKS = (
    Check("gpus", "gpu", "every GPU answers", judge_inventory, ("gpu-hidden", "gpu-lost", "gpu-missing")),
    Check(
        "gpu-choice",
        "gpu",
        "the GPUs that --gpus asks for exist and are of one model",
        judge_choice,
        ("gpu-spec-invalid", "gpus-mixed"),
    ),
    Check("gpu-capability", "gpu", "the engine's build knows these GPUs", judge_capability, ("gpu-unsupported",)),
    Check("gpu-mig", "gpu", "the chosen GPUs are whole, not slices (MIG)", judge_mig, ("gpu-mig", "gpu-mig-pending")),
    *gpu_room.CHECKS,
)

"""The fabric of NVSwitches on HGX and DGX boards: who sets it up, and whether the GPUs have joined it.

The checks build on each other from the bottom: a kernel module, the fabric manager, the GPUs. A cause fails once.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu
from nimctl.doctor.checks.gpu_words import (
    is_blackwell_board,
    is_rack,
    is_sxm,
    lines,
    nothing_to_judge,
    ranges,
)
from nimctl.doctor.checks.scope import chosen_gpus
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import numbers

_BOARD = 8  # GPUs of the smallest board with NVSwitches; boards of four are wired GPU to GPU
# Blackwell's boards need NVIDIA's subnet manager beside the fabric manager, and stay "in progress" without it:
# https://github.com/siderolabs/extensions/pull/717
_SUBNET_MANAGER = " HGX B200 and B300 also need the package nvlsm, which is installed apart from it."
_LOG = "`sudo journalctl -u nvidia-fabricmanager` says why when it stops again."


def has_switches(facts: HostFacts) -> bool:
    """Whether NVSwitches join the GPUs of this host, so that a fabric manager has to set them up.

    Switches up to Hopper's are PCI devices of their own; Blackwell's are not, and are told by the board's eight GPUs.
    The racks of GB200 and later have theirs outside of the host.
    """
    if any(is_rack(g) for g in facts.gpus.gpus):
        return False
    return bool(facts.nvidia_kernel.nvswitches) or sum(map(is_sxm, facts.gpus.gpus)) >= _BOARD


def fabric_fails(facts: HostFacts, needs: Needs) -> bool:
    """Whether one of the checks below fails: what rests on the fabric then has no cause of its own."""
    return _fails(facts, needs, judge_ib_umad, judge_fabric_manager, judge_fabric)


def _fails(facts: HostFacts, needs: Needs, *judges: Callable[[HostFacts, Needs], list[Finding]]) -> bool:
    return any(finding.verdict == "fail" for judge in judges for finding in judge(facts, needs))


def _progress(gpus: Sequence[Gpu]) -> Literal["up", "down"] | None:
    """Whether all GPUs have joined the fabric; None where the driver does not say it of all."""
    states = {g.fabric.state if g.fabric else None for g in gpus}
    if states & {"not-started", "in-progress"}:
        return "down"
    return "up" if states == {"completed"} else None


def judge_ib_umad(facts: HostFacts, needs: Needs) -> list[Finding]:
    """On HGX B200 and B300 the fabric manager reaches the switches as InfiniBand devices, and does not start unless the
    module ib_umad is loaded. https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html and
    https://github.com/spectrocloud/CanvOS/pull/700
    """
    title = "module ib_umad"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("ib-umad", title, reason)]
    if sum(map(is_blackwell_board, facts.gpus.gpus)) < _BOARD:
        return [skipped("ib-umad", title, "only HGX B200 and B300 need it")]
    loaded = "ib_umad" in (facts.nvidia_kernel.modules or ())
    if loaded or _progress(chosen_gpus(facts, needs)) == "up":
        note = "module ib_umad is loaded" if loaded else "the fabric is up without a module ib_umad (built in?)"
        return [passed("ib-umad", note)]
    if cause := _doubt(facts):
        return [unknown("ib-umad", title, cause=cause)]
    return [
        failed(
            "ib-umad",
            "ib-umad-missing",
            "module ib_umad is not loaded",
            cause="the fabric manager cannot reach the NVSwitches of an HGX B200 or B300 without it",
            fix="Run `echo ib_umad | sudo tee /etc/modules-load.d/ib_umad.conf && sudo modprobe ib_umad && "
            "sudo systemctl restart nvidia-fabricmanager`.",
        )
    ]


def _doubt(facts: HostFacts) -> str:
    """Why a module that is not seen may be there, or not be needed here."""
    if facts.nvidia_kernel.modules is None:
        return "the modules could not be read"
    if facts.iommu.virtual:
        return "the host of this virtual machine may set up the switches"
    return "it is not loaded, and yet the fabric manager runs" if facts.fabric_manager.service == "active" else ""


def judge_fabric_manager(facts: HostFacts, needs: Needs) -> list[Finding]:
    """On boards with NVSwitches the fabric manager runs, in exactly the driver's version: until it has set up the
    switches, CUDA does not start ("system not yet initialized", 802), and of another version it refuses to run.
    https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html and
    https://github.com/NVIDIA/NVSentinel/issues/883
    """
    title = "fabric manager"
    reason = nothing_to_judge(facts, needs) or ("" if has_switches(facts) else "no NVSwitch is on this host")
    if not reason and _fails(facts, needs, judge_ib_umad):
        reason = "it cannot run without ib_umad"
    if reason:
        return [skipped("fabric-manager", title, reason)]
    progress, manager = _progress(chosen_gpus(facts, needs)), facts.fabric_manager
    running = manager.service == "active"
    # Images of clouds bring the service also for machines without switches, where it ends at once.
    if _may_be_the_hosts(facts) and not running and progress != "down":
        return [_unseen(facts, progress)]
    have, want = numbers(manager.version), numbers(facts.gpus.driver)
    if have is not None and want is not None and have != want:
        return [_mismatch(facts, failed if not running and progress != "up" and manager.service else warned)]
    if running:
        return [passed("fabric-manager", f"the fabric manager runs ({manager.version or 'version not told'})")]
    if manager.service in (None, "absent"):
        return [_unseen(facts, progress)]
    say = warned if progress == "up" or manager.service == "activating" else failed
    return [_down(say, f"the fabric manager does not run: {manager.service}")]


def _may_be_the_hosts(facts: HostFacts) -> bool:
    """Whether this is a virtual machine that was given no NVSwitch: then its host sets them up.

    https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html (shared NVSwitch virtualization)
    """
    return bool(facts.iommu.virtual) and not facts.nvidia_kernel.nvswitches


def _mismatch(facts: HostFacts, say: Callable[..., Finding]) -> Finding:
    driver = facts.gpus.driver
    return say(
        "fabric-manager",
        "fabric-manager-mismatch",
        f"fabric manager {facts.fabric_manager.version}, driver {driver}",
        cause="they must have the same version, or the fabric manager refuses to start",
        fix=f"Install that of {driver} (`sudo apt-get install 'nvidia-fabricmanager*={driver}*'`, or the way of your "
        "distribution), then `sudo systemctl restart nvidia-fabricmanager`.",
    )


def _unseen(facts: HostFacts, progress: Literal["up", "down"] | None) -> Finding:
    """There is no such service, or nobody could be asked: it may run in a container, or in a virtual machine's host."""
    if progress == "up":
        return passed("fabric-manager", "the fabric is up; its manager is no service of this host")
    absent, hosts = facts.fabric_manager.service == "absent", _may_be_the_hosts(facts)
    if not absent or hosts:
        cause = "the host of this virtual machine may run it" if hosts else "systemd could not be asked"
        return unknown("fabric-manager", "fabric manager", cause=cause)
    return _down(failed if progress == "down" else warned, "the fabric manager is not installed")


def _down(say: Callable[..., Finding], title: str) -> Finding:
    install = "Install the one of the driver's version, then `" if title.endswith("installed") else "`"
    return say(
        "fabric-manager",
        "fabric-manager-down",
        title,
        cause="it sets up the NVSwitches; until it has done so CUDA does not start (802)",
        fix=f"{install}sudo systemctl enable --now nvidia-fabricmanager`; {_LOG}",
    )


def judge_fabric(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The GPUs have joined their NVLink fabric: before, CUDA does not start ("system not yet initialized", 802); one
    that was refused has no NVLink. https://docs.nvidia.com/deploy/nvml-api/group__GPUFABRIC.html and
    https://github.com/gpustack/gpustack/issues/4154
    """
    title = "NVLink fabric"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("fabric", title, reason)]
    chosen = chosen_gpus(facts, needs)
    members = [g for g in chosen if g.fabric is not None and g.fabric.state not in (None, "not-supported")]
    if not members:
        # Ampere's switches have no such state at all.
        if has_switches(facts) and not all(g.fabric for g in chosen) and not _is_ampere(chosen):
            return [unknown("fabric", title, cause="the driver does not tell its state")]
        return [skipped("fabric", title, "these GPUs know of none")]
    if _fails(facts, needs, judge_ib_umad, judge_fabric_manager):
        return [skipped("fabric", title, "its manager does not run")]
    if waiting := [g for g in members if g.fabric and g.fabric.state in ("not-started", "in-progress")]:
        return [_waiting(waiting, facts)]
    findings = []
    if refused := [g for g in members if g.fabric and g.fabric.status not in (None, 0)]:
        findings.append(
            warned(
                "fabric",
                "gpu-fabric-error",
                f"GPU {ranges(refused)} could not join the NVLink fabric",
                cause="its NVLinks or a switch failed when the fabric was set up",
                fix="`sudo journalctl -u nvidia-fabricmanager` and `sudo dmesg | grep -i SXid` tell of them; "
                "reset the GPUs or reboot.",
                evidence=lines(refused, lambda g: f"NVML error {g.fabric.status if g.fabric else '?'}"),
            )
        )
    if unhealthy := [g for g in members if g.fabric and g.fabric.unhealthy]:
        findings.append(
            warned(
                "fabric",
                "gpu-fabric-unhealthy",
                f"the NVLink fabric of GPU {ranges(unhealthy)} is not healthy",
                cause="the driver reports a fault on the way between GPUs, which then are slow or hang",
                fix="`nvidia-smi -q | grep -A 15 Fabric` has the whole; drain the host, reset the GPUs or reboot.",
                evidence=lines(unhealthy, lambda g: ", ".join(g.fabric.unhealthy) if g.fabric else ""),
            )
        )
    return findings or [passed("fabric", f"GPU {ranges(members)} joined the NVLink fabric")]


def _waiting(waiting: list[Gpu], facts: HostFacts) -> Finding:
    states = sorted({g.fabric.state for g in waiting if g.fabric and g.fabric.state})
    title, evidence = f"GPU {ranges(waiting)} has not joined the NVLink fabric", lines(waiting, _state)
    if any(map(is_rack, waiting)):
        return warned(
            "fabric",
            "gpu-fabric-down",
            title,
            cause="the rack's NVLink controller (NMX) has not set it up",
            fix="Look at its switch trays; on this host, `sudo systemctl status nvidia-imex`.",
            evidence=evidence,
        )
    if states == ["not-started"] and not has_switches(facts):
        return unknown("fabric", title, cause="it was not begun, and this host has no NVSwitch", evidence=evidence)
    return failed(
        "fabric",
        "gpu-fabric-down",
        title,
        cause="CUDA does not start before (802, system not yet initialized)",
        fix=f"Wait a minute after a boot, then `sudo systemctl restart nvidia-fabricmanager`; {_LOG} "
        "A virtual machine with one GPU of such a board needs its NVLinks turned off by its host."
        f"{_SUBNET_MANAGER if any(map(is_blackwell_board, waiting)) else ''}",
        evidence=evidence,
    )


def _state(gpu: Gpu) -> str:
    return str(gpu.fabric.state) if gpu.fabric else "not told"


def _is_ampere(gpus: Sequence[Gpu]) -> bool:
    return all((g.compute_capability or "").startswith("8.") for g in gpus)


CHECKS = (
    Check("ib-umad", "gpu", "HGX B200 and B300: the module ib_umad is loaded", judge_ib_umad, ("ib-umad-missing",)),
    Check(
        "fabric-manager",
        "gpu",
        "boards with NVSwitches: the fabric manager runs",
        judge_fabric_manager,
        ("fabric-manager-down", "fabric-manager-mismatch"),
    ),
    Check(
        "fabric",
        "gpu",
        "the GPUs have joined their NVLink fabric",
        judge_fabric,
        ("gpu-fabric-down", "gpu-fabric-error", "gpu-fabric-unhealthy"),
    ),
)

"""How the GPUs reach each other: NVLink, the switch fabric, and direct access over PCI."""

from collections import Counter

from nimctl.core.facts import HostFacts, IommuFacts
from nimctl.core.gpus import Gpu, GpuLink
from nimctl.doctor.checks import gpu_fabric
from nimctl.doctor.checks.gpu_fabric import fabric_fails, has_switches
from nimctl.doctor.checks.gpu_words import EVIDENCE, is_rack, is_sxm, lines, nothing_to_judge, ranges, smi
from nimctl.doctor.checks.scope import chosen_gpus
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned

_ACS_GUIDE = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/gpu_troubleshooting.html"


def judge_nvlink(facts: HostFacts, needs: Needs) -> list[Finding]:
    """All NVLinks are up: with some down, every collective operation runs at the pace of the GPU with the fewest.

    https://docs.nvidia.com/deploy/nvml-api/group__NvLink.html
    """
    title = "NVLink"
    reason = nothing_to_judge(facts, needs) or ("the fabric is not up" if fabric_fails(facts, needs) else "")
    if reason:
        return [skipped("nvlink", title, reason)]
    whole = [g for g in chosen_gpus(facts, needs) if not g.mig]  # a GPU in slices has no use for its links
    told = [g for g in whole if g.nvlinks_up is not None or g.nvlinks_down is not None]
    if not told:
        if len(whole) > 1 and all(map(is_sxm, whole)):
            return [unknown("nvlink", title, cause="these GPUs have it, but the driver does not tell its state")]
        return [skipped("nvlink", title, "these GPUs have none")]
    if down := _with_links_down(told):
        if facts.iommu.virtual and not any(g.nvlinks_up for g in told):
            cause = "none is up in this virtual machine, whose host may have turned them off"
            return [unknown("nvlink", f"NVLinks of GPU {ranges(down)}", cause=cause)]
        return [
            warned(
                "nvlink",
                "nvlink-down",
                f"NVLinks of GPU {ranges(down)} are down",
                cause="a link or its switch port failed; traffic takes the remaining ones, or PCIe",
                fix=f"{smi('nvlink -s', down, facts)} names them; reset the GPUs (`sudo nvidia-smi --gpu-reset`) "
                "or reboot, and look for `SXid` in `sudo dmesg`.",
                evidence=lines(down, lambda g: f"{g.nvlinks_up or 0} up, {g.nvlinks_down or 0} down"),
            )
        ]
    linked = [g for g in told if g.nvlinks_up]
    counts = sorted({g.nvlinks_up or 0 for g in linked})
    each = "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    up = f"NVLinks of GPU {ranges(linked)} are up ({each} each)"
    return [passed("nvlink", up if linked else "NVLink is not connected: no bridge")]


def _with_links_down(gpus: list[Gpu]) -> list[Gpu]:
    """On a board every link counts, unless the GPU is alone there. Cards have as many as bridges were plugged: one is
    odd when it has fewer than another of its kind, and not when it has none.
    """
    most = Counter[str | None]()
    for gpu in gpus:
        most[gpu.name] = max(most[gpu.name], gpu.nvlinks_up or 0)
    down = []
    for gpu in gpus:
        up = gpu.nvlinks_up or 0
        lacks = bool(gpu.nvlinks_down) and len(gpus) > 1 if is_sxm(gpu) else 0 < up < most[gpu.name]
        if lacks:
            down.append(gpu)
    return down


def judge_p2p(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Each GPU may read the memory of the others directly; without, NCCL copies through shared memory of the host.

    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/gpu_troubleshooting.html
    """
    title = "direct access between GPUs"
    if reason := _too_few(facts, needs):
        return [skipped("p2p", title, reason)]
    if fabric_fails(facts, needs):
        return [skipped("p2p", title, "the fabric is not up")]
    chosen = {g.index: g for g in chosen_gpus(facts, needs) if not g.mig}
    pairs = _pairs(facts, chosen)
    if not pairs:
        return [unknown("p2p", title, cause="the driver does not tell it")]
    apart = [pair for pair in pairs if pair.p2p is False]
    if not apart:
        return [passed("p2p", f"{title}: all {len(pairs)} pairs that were asked")]
    reasons = ", ".join(sorted({pair.p2p_status or "not told" for pair in apart})[:4])
    evidence = tuple(f"GPU {p.first} and {p.second}: {p.p2p_status or 'no'}" for p in apart[:EVIDENCE])
    joined = [pair for pair in apart if is_sxm(chosen[pair.first]) and is_sxm(chosen[pair.second])]
    if joined and not facts.iommu.virtual:
        return [
            warned(
                "p2p",
                "p2p-missing",
                f"no direct access between {len(joined)} of {len(pairs)} pairs of GPUs",
                cause=f"NVLink joins them, but the driver says: {reasons}",
                fix="`nvidia-smi topo -p2p n` shows which; look for `disabled-by-regkey` in /etc/modprobe.d, for links "
                "that are down, then reset the GPUs or reboot.",
                evidence=evidence,
            )
        ]
    return [passed("p2p", f"{title}: not for {len(apart)} of {len(pairs)} pairs ({reasons})", evidence=evidence)]


def judge_acs(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Nothing on the PCI bus turns back traffic between GPUs: PCI access control (ACS) and a translating IOMMU do, and
    NCCL is slow or hangs.
    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/gpu_troubleshooting.html,
    https://github.com/vllm-project/vllm/issues/9920 and https://github.com/NVIDIA/nccl/issues/2079
    """
    title = "PCI access control and IOMMU"
    reason = _too_few(facts, needs) or _no_traffic_over_pci(facts, needs)
    if reason:
        return [skipped("acs", title, reason)]
    iommu = facts.iommu
    if iommu.virtual:
        return [unknown("acs", title, cause="a virtual machine does not show what its host has set")]
    if iommu.mode == "translated" or iommu.acs_bridges:
        return [_detour(iommu)]
    if iommu.mode is None:
        return [unknown("acs", title, cause="the kernel does not show whether an IOMMU translates")]
    if iommu.acs_bridges is None:
        cause = "only root may read it: `sudo lspci -vvv | grep ACSCtl`"
        return [unknown("acs", f"IOMMU {iommu.mode}; PCI access control not told", cause=cause)]
    return [passed("acs", f"nothing turns back traffic between GPUs (IOMMU {iommu.mode})")]


def _detour(iommu: IommuFacts) -> Finding:
    bridges = "not told" if iommu.acs_bridges is None else str(iommu.acs_bridges)
    evidence = (f"IOMMU: {iommu.mode or 'not told'}; bridges that redirect: {bridges}",)
    if iommu.mode == "translated":
        return warned(
            "acs",
            "iommu-translates",
            "the IOMMU stands between the GPUs" + (", and bridges turn traffic to it" if iommu.acs_bridges else ""),
            cause="traffic between GPUs makes a detour through the processor, where NCCL is slow or hangs",
            fix="Boot with `iommu=pt` (`sudo grubby --update-kernel=ALL --args=iommu=pt`; on Ubuntu GRUB_CMDLINE_LINUX "
            f"and `sudo update-grub`); when NCCL hangs, turn ACS off ({_ACS_GUIDE}) or run with "
            "`--env NCCL_P2P_DISABLE=1`.",
            evidence=evidence,
            severity="warning" if iommu.acs_bridges else "info",
        )
    return warned(
        "acs",
        "acs-redirects",
        f"{bridges} PCI bridges turn traffic between GPUs to the processor (ACS)",
        cause="access control is on, so that direct access makes a detour, and NCCL is slow or hangs",
        fix="Turn it off in the firmware, or on each bridge until the next boot: "
        f"`sudo setpci -s BRIDGE ECAP_ACS+0x6.w=0000`, {_ACS_GUIDE}.",
        evidence=evidence,
        severity="info",
    )


def _no_traffic_over_pci(facts: HostFacts, needs: Needs) -> str:
    """Why the way over PCI does not matter."""
    chosen = {g.index: g for g in chosen_gpus(facts, needs) if not g.mig}
    if has_switches(facts) or all(is_sxm(g) or is_rack(g) for g in chosen.values()):
        return "NVLink joins these GPUs"
    pairs = _pairs(facts, chosen)
    return "they have no direct access anyway" if pairs and all(x.p2p is False for x in pairs) else ""


def _too_few(facts: HostFacts, needs: Needs) -> str:
    if reason := nothing_to_judge(facts, needs):
        return reason
    whole = [g for g in chosen_gpus(facts, needs) if not g.mig]
    return "" if len(whole) > 1 else "it needs two whole GPUs"


def _pairs(facts: HostFacts, chosen: dict[int, Gpu]) -> list[GpuLink]:
    """The pairs of chosen GPUs of which the driver has said whether they have direct access."""
    return [x for x in facts.gpus.links if x.first in chosen and x.second in chosen and x.p2p is not None]


CHECKS = (
    *gpu_fabric.CHECKS,
    Check("nvlink", "gpu", "all NVLinks are up", judge_nvlink, ("nvlink-down",)),
    Check("p2p", "gpu", "the GPUs have direct access to each other", judge_p2p, ("p2p-missing",)),
    Check(
        "acs",
        "gpu",
        "nothing on the PCI bus turns back traffic between GPUs",
        judge_acs,
        ("acs-redirects", "iommu-translates"),
    ),
)

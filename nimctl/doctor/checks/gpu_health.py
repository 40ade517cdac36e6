"""Whether the chosen GPUs are well: memory errors, modes, links to the host."""

from collections.abc import Sequence

from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu
from nimctl.doctor.checks.gpu_words import is_data_centre, is_rack, lines, nothing_to_judge, ranges, smi
from nimctl.doctor.checks.scope import chosen_gpus
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned

# Its clients share one context, so that it may hold a GPU of which every program is to be the only one.
# https://docs.nvidia.com/deploy/mps/index.html
_SHARER = "nvidia-cuda-mps"


def judge_ecc(facts: HostFacts, needs: Needs) -> list[Finding]:
    """No memory error that could not be corrected since the last reset: such an error ends the program that met it, and
    a GPU where they return is to be replaced. https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/
    """
    title = "memory errors"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-ecc", title, reason)]
    chosen = chosen_gpus(facts, needs)
    turned = _ecc_turned(chosen, facts)
    if worn := [g for g in chosen if g.ecc_uncorrected]:
        return [
            *turned,
            warned(
                "gpu-ecc",
                "gpu-ecc",
                f"uncorrected memory errors since the last reset: GPU {ranges(worn)}",
                cause="the memory of the GPU has lost data",
                fix=f"Reset it ({smi('--gpu-reset', worn, facts)}), and replace it when they return.",
                evidence=lines(
                    worn, lambda g: f"{g.ecc_uncorrected}, over its life {g.ecc_uncorrected_aggregate or '?'}"
                ),
            ),
        ]
    if turned:
        return turned
    if silent := [g for g in chosen if g.ecc and g.ecc_uncorrected is None]:
        cause = "ECC is on, but the driver does not tell its count"
        return [unknown("gpu-ecc", f"{title} of GPU {ranges(silent)}", cause=cause)]
    if all(g.ecc is None and g.ecc_uncorrected is None for g in chosen):
        return [skipped("gpu-ecc", title, "these GPUs do not count them")]
    off = [g for g in chosen if g.ecc is False]
    note = f"; ECC is off for GPU {ranges(off)}, errors go unseen" if off and any(map(is_data_centre, off)) else ""
    return [passed("gpu-ecc", f"no uncorrected memory errors{note}")]


def _ecc_turned(chosen: Sequence[Gpu], facts: HostFacts) -> list[Finding]:
    """What waits for a reset: with ECC some GPUs have less memory, and without none tells of its errors."""
    waiting = [g for g in chosen if None not in (g.ecc, g.ecc_pending) and g.ecc != g.ecc_pending]
    if not waiting:
        return []
    after = "on" if waiting[0].ecc_pending else "off"
    return [
        warned(
            "gpu-ecc",
            "gpu-ecc-pending",
            f"ECC of GPU {ranges(waiting)} will be {after} after the next reset",
            cause="a change of the mode takes hold when the GPU is reset",
            fix=f"With nothing running on them: {smi('--gpu-reset', waiting, facts)}; "
            f"{smi(f'-e {int(bool(waiting[0].ecc))}', waiting, facts)} takes the change back.",
            severity="info",
        )
    ]


def judge_rows(facts: HostFacts, needs: Needs) -> list[Finding]:
    """No row of GPU memory waits to be replaced by a spare one, which a reset does, and none could not be replaced,
    which makes the GPU a case for return.
    https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/error-recovery-and-response-flags.html
    """
    title = "spare rows of GPU memory"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-rows", title, reason)]
    chosen = chosen_gpus(facts, needs)
    findings = []
    if broken := [g for g in chosen if g.row_remap_failed]:
        findings.append(
            warned(
                "gpu-rows",
                "gpu-row-remap-failed",
                f"a broken memory row could not be replaced: GPU {ranges(broken)}",
                cause="the spare rows of that memory bank are used up",
                fix="Leave it out with --gpus, run NVIDIA's field diagnostic and return it: "
                f"{smi('-q -d ROW_REMAPPER', broken, facts)} is the evidence.",
                evidence=lines(broken, lambda g: f"{g.rows_remapped} rows replaced"),
            )
        )
    if waiting := [g for g in chosen if g.row_remap_pending or g.page_retirement_pending]:
        findings.append(
            warned(
                "gpu-rows",
                "gpu-row-remap-pending",
                f"a memory row waits to be replaced: GPU {ranges(waiting)}",
                cause="it is replaced when the GPU is reset; until then its memory is fenced off",
                fix=f"With nothing running on it: {smi('--gpu-reset', waiting, facts)}.",
            )
        )
    if findings:
        return findings
    told = [g for g in chosen if (g.row_remap_failed, g.row_remap_pending, g.page_retirement_pending) != (None,) * 3]
    if told:
        used = sum(g.rows_remapped or g.pages_retired or 0 for g in told)
        return [passed("gpu-rows", "no memory row waits to be replaced" + (f" ({used} were)" if used else ""))]
    if any(g.ecc and not g.mig for g in chosen):
        return [unknown("gpu-rows", title, cause="ECC is on, but the driver does not tell of rows or pages")]
    return [skipped("gpu-rows", title, "these GPUs do not tell of them")]


def judge_compute_mode(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The GPUs let CUDA programs start: in mode "prohibited" none may, and in mode "exclusive process" NVIDIA names
    failures of servers of several processes. https://docs.nvidia.com/nim/cosmos/3.0.0/troubleshooting.html
    """
    title = "compute mode"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-compute-mode", title, reason)]
    chosen = chosen_gpus(facts, needs)
    closed = [g for g in chosen if g.compute_mode == "prohibited"]
    alone = [g for g in chosen if (g.compute_mode or "").startswith("exclusive")]
    taken = [g for g in alone if _is_taken(g)]
    if stuck := closed or taken:
        what = "is prohibited" if closed else "is exclusive, and a program has it"
        cause = "no CUDA program may start on a GPU in this mode" if closed else "only one CUDA program may use it"
        return [
            failed(
                "gpu-compute-mode",
                "gpu-compute-mode",
                f"compute mode of GPU {ranges(stuck)} {what}",
                cause=cause,
                fix=f"Set it back: {smi('-c DEFAULT', stuck, facts)}.",
                evidence=lines(taken if not closed else [], lambda g: f"pid {_is_taken(g)[0]}"),
            )
        ]
    if alone:
        return [
            warned(
                "gpu-compute-mode",
                "gpu-compute-mode",
                f"compute mode of GPU {ranges(alone)} is {alone[0].compute_mode}",
                cause="only one process may use such a GPU, and servers of several processes fail to attach",
                fix=f"Set it back: {smi('-c DEFAULT', alone, facts)}.",
            )
        ]
    if dumb := [g for g in chosen if g.compute_mode is None]:
        return [unknown("gpu-compute-mode", f"{title} of GPU {ranges(dumb)}", cause="the driver does not tell it")]
    return [passed("gpu-compute-mode", "compute mode lets every CUDA program start")]


def _is_taken(gpu: Gpu) -> list[int]:
    """The processes that keep an exclusive GPU to themselves; none where one may be a sharing server."""
    names = [p.name for p in gpu.processes if not p.graphics]
    if any(name is None or name.startswith(_SHARER) for name in names):
        return []
    return [p.pid for p in gpu.processes if not p.graphics]


def judge_persistence(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The driver keeps idle GPUs ready: without, each start waits 1-3 s a GPU, and settings such as power limits are
    lost. https://docs.nvidia.com/deploy/driver-persistence/overview.html
    """
    title = "persistence"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-persistence", title, reason)]
    if facts.system.wsl:
        return [skipped("gpu-persistence", title, "Windows keeps the driver loaded")]
    matters = [g for g in chosen_gpus(facts, needs) if is_data_centre(g) and not g.unified_memory]
    if not matters:
        return [skipped("gpu-persistence", title, "it matters for data-centre GPUs")]
    if off := [g for g in matters if g.persistence is False]:
        return [
            warned(
                "gpu-persistence",
                "gpu-persistence-off",
                f"persistence is off for GPU {ranges(off)}",
                cause="an idle GPU is shut down: the next start is slower, and its settings are lost",
                fix=f"Turn it on: {smi('-pm 1', off, facts)}, and over a reboot `sudo systemctl enable --now "
                "nvidia-persistenced`.",
                severity="info",
            )
        ]
    if any(g.persistence is None for g in matters):
        return [unknown("gpu-persistence", title, cause="the driver does not tell it")]
    return [passed("gpu-persistence", "the driver keeps idle GPUs ready (persistence)")]


def judge_pcie(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Each GPU has all PCIe lanes that its slot offers; fewer slow the loading of weights, and without NVLink all
    traffic between GPUs. The generation is not judged: it drops while a GPU idles, to save power.
    https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html (nvmlDeviceGetMaxPcieLinkWidth)
    """
    title = "PCIe lanes"
    if reason := nothing_to_judge(facts, needs):
        return [skipped("gpu-pcie", title, reason)]
    on_bus = [g for g in chosen_gpus(facts, needs) if not g.unified_memory and not is_rack(g)]
    told = [(g, g.pcie_width, g.pcie_width_max) for g in on_bus if g.pcie_width and g.pcie_width_max]
    if not on_bus:
        return [skipped("gpu-pcie", title, "these GPUs reach the processor in another way")]
    if not told:
        return [unknown("gpu-pcie", title, cause="the driver does not tell them")]
    narrow = [g for g, width, most in told if width < most]
    widest = max(width for _, width, _ in told)
    # Where all of them have the same, or on a desktop, the board was built so; one that differs is seated badly.
    odd = [g for g in narrow if is_data_centre(g) and (g.pcie_width or 0) < widest]
    if odd and facts.iommu.virtual:
        return [unknown("gpu-pcie", f"{title} of GPU {ranges(odd)}", cause="a virtual machine shows made-up links")]
    if odd:
        return [
            warned(
                "gpu-pcie",
                "gpu-pcie-narrow",
                f"GPU {ranges(odd)} has fewer PCIe lanes than its slot offers",
                cause="the card, its riser or its slot has a bad contact",
                fix="Seat it anew, or change the riser; `sudo lspci -vv -d 10de: | grep -i LnkSta` shows the lanes.",
                evidence=lines(odd, lambda g: f"x{g.pcie_width} of x{g.pcie_width_max}"),
            )
        ]
    note = f"; GPU {ranges(narrow)} could have more" if narrow else ""
    return [passed("gpu-pcie", f"PCIe x{min(width for _, width, _ in told)} or more{note}")]


CHECKS = (
    Check("gpu-ecc", "gpu", "no uncorrected memory errors", judge_ecc, ("gpu-ecc", "gpu-ecc-pending")),
    Check(
        "gpu-rows",
        "gpu",
        "no broken memory row waits or is left",
        judge_rows,
        ("gpu-row-remap-failed", "gpu-row-remap-pending"),
    ),
    Check(
        "gpu-compute-mode",
        "gpu",
        "the compute mode lets CUDA programs start",
        judge_compute_mode,
        ("gpu-compute-mode",),
    ),
    Check("gpu-persistence", "gpu", "the driver keeps idle GPUs ready", judge_persistence, ("gpu-persistence-off",)),
    Check("gpu-pcie", "gpu", "the GPUs have all their PCIe lanes", judge_pcie, ("gpu-pcie-narrow",)),
)

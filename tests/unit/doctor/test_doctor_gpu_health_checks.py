"""Memory errors, modes and PCIe lanes of the chosen GPUs: what passes, what warns or fails, what cannot be told."""

import pytest

from nimctl.core.facts import IommuFacts
from nimctl.core.gpus import GpuProcess
from nimctl.doctor.model import Needs
from tests.unit.doctor.gpu_hosts import card, desktop, gb10, gpu_host, l40s, rack
from tests.unit.doctor.hosts import DEMO, gpu, host, inventory, judge, verdicts, without_gpus

HEALTH = ("gpu-ecc", "gpu-rows", "gpu-compute-mode", "gpu-persistence", "gpu-pcie")


def one(check, needs=None, **changes):
    """The finding about a pair of H200 of which the second differs."""
    facts = gpu_host((card(0, "NVIDIA H200", 141, "9.0"), card(1, "NVIDIA H200", 141, "9.0", **changes)))
    (finding,) = judge(check, facts, needs)
    return finding


@pytest.mark.parametrize("check", HEALTH)
def test_without_gpus_nothing_is_asked_of_them(check):
    assert verdicts(judge(check, host(gpus=without_gpus()))) == [("skip", check)]
    assert verdicts(judge(check, l40s(), Needs(recipe=DEMO, gpus="none"))) == [("skip", check)]
    assert verdicts(judge(check, l40s(), Needs(recipe=DEMO, gpus="99"))) == [("skip", check)]


@pytest.mark.parametrize(
    ("check", "change", "expected"),
    [
        ("gpu-ecc", {}, ("pass", "gpu-ecc")),
        ("gpu-ecc", {"ecc_uncorrected": 3}, ("warn", "gpu-ecc")),
        ("gpu-ecc", {"ecc_uncorrected": None}, ("unknown", "gpu-ecc")),
        ("gpu-ecc", {"ecc": False, "ecc_uncorrected": None}, ("pass", "gpu-ecc")),
        ("gpu-rows", {}, ("pass", "gpu-rows")),
        ("gpu-rows", {"row_remap_pending": True}, ("warn", "gpu-row-remap-pending")),
        ("gpu-rows", {"row_remap_failed": True}, ("warn", "gpu-row-remap-failed")),
        ("gpu-rows", {"page_retirement_pending": True}, ("warn", "gpu-row-remap-pending")),
        ("gpu-compute-mode", {}, ("pass", "gpu-compute-mode")),
        ("gpu-compute-mode", {"compute_mode": "prohibited"}, ("fail", "gpu-compute-mode")),
        ("gpu-compute-mode", {"compute_mode": "exclusive-process"}, ("warn", "gpu-compute-mode")),
        ("gpu-compute-mode", {"compute_mode": "exclusive-thread"}, ("warn", "gpu-compute-mode")),
        ("gpu-compute-mode", {"compute_mode": None}, ("unknown", "gpu-compute-mode")),
        ("gpu-persistence", {}, ("pass", "gpu-persistence")),
        ("gpu-persistence", {"persistence": False}, ("warn", "gpu-persistence-off")),
        ("gpu-persistence", {"persistence": None}, ("unknown", "gpu-persistence")),
        ("gpu-pcie", {}, ("pass", "gpu-pcie")),
        ("gpu-pcie", {"pcie_width": 4}, ("warn", "gpu-pcie-narrow")),
        ("gpu-pcie", {"pcie_width": None}, ("pass", "gpu-pcie")),
    ],
)
def test_health_of_the_second_gpu(check, change, expected):
    finding = one(check, **change)
    assert (finding.verdict, finding.id) == expected
    if finding.verdict in ("warn", "fail"):
        assert "GPU 1" in finding.title
        assert finding.cause
        assert "`" in finding.fix
        only_first = one(check, Needs(recipe=DEMO, gpus="device=0"), **change)
        assert only_first.verdict == "pass", "a GPU that was not chosen does not matter"


@pytest.mark.parametrize(("ecc", "after", "back"), [(True, "off", "-e 1"), (False, "on", "-e 0")])
def test_a_change_of_ecc_waits_for_a_reset_and_is_a_note(ecc, after, back):
    finding = one("gpu-ecc", ecc=ecc, ecc_pending=not ecc)
    assert (finding.verdict, finding.id, finding.severity) == ("warn", "gpu-ecc-pending", "info")
    assert finding.title == f"ECC of GPU 1 will be {after} after the next reset"
    assert "--gpu-reset -i 1" in finding.fix and back in finding.fix
    assert one("gpu-ecc", ecc=ecc, ecc_pending=ecc).verdict == "pass"
    assert one("gpu-ecc", ecc=ecc, ecc_pending=None).verdict == "pass"


def test_errors_are_counted_over_its_life_as_well():
    finding = one("gpu-ecc", ecc_uncorrected=3, ecc_uncorrected_aggregate=17)
    assert finding.evidence == ("GPU 1: 3, over its life 17",)
    assert "--gpu-reset -i 1" in finding.fix


def test_ecc_that_is_off_is_told_of_servers_and_not_of_desktops():
    assert "ECC is off for GPU 1" in one("gpu-ecc", ecc=False, ecc_uncorrected=None).title
    (plain,) = judge("gpu-ecc", desktop(ecc=False))
    assert (plain.verdict, "ECC" in plain.title) == ("pass", False)
    assert judge("gpu-ecc", desktop())[0].verdict == "skip"


def test_a_row_may_wait_on_one_gpu_and_be_lost_on_another():
    cards = (card(0, "NVIDIA H200", 141, "9.0", row_remap_failed=True),
             card(1, "NVIDIA H200", 141, "9.0", row_remap_pending=True))  # fmt: skip
    assert [f.id for f in judge("gpu-rows", gpu_host(cards))] == ["gpu-row-remap-failed", "gpu-row-remap-pending"]


def test_rows_that_nobody_tells_of():
    silent = {"row_remap_pending": None, "row_remap_failed": None, "page_retirement_pending": None}
    server = gpu_host((card(0, "NVIDIA H200", 141, "9.0", **silent),))
    assert verdicts(judge("gpu-rows", server)) == [("unknown", "gpu-rows")]
    assert verdicts(judge("gpu-rows", desktop())) == [("skip", "gpu-rows")]
    sliced = gpu_host((card(0, "NVIDIA H200", 141, "9.0", **silent, mig=True),))
    assert verdicts(judge("gpu-rows", sliced)) == [("skip", "gpu-rows")]  # NVML does not tell of them under MIG


def test_an_exclusive_gpu_that_a_program_has_is_a_proof():
    busy = {"compute_mode": "exclusive-process", "processes": (GpuProcess(4711, None, "python3"),)}
    finding = one("gpu-compute-mode", **busy)
    assert (finding.verdict, finding.id) == ("fail", "gpu-compute-mode")
    assert finding.evidence == ("GPU 1: pid 4711",)
    assert "`sudo nvidia-smi -c DEFAULT -i 1`" in finding.fix


@pytest.mark.parametrize(
    "holder",
    [
        GpuProcess(1, None, "nvidia-cuda-mps-server"),  # shares what it holds
        GpuProcess(1, None, None),  # nobody knows
        GpuProcess(1, None, "Xorg", graphics=True),
    ],
)
def test_an_exclusive_gpu_whose_holder_may_share_is_a_risk_only(holder):
    assert one("gpu-compute-mode", compute_mode="exclusive-process", processes=(holder,)).verdict == "warn"


def test_a_setting_of_all_gpus_needs_no_list_of_them():
    cards = tuple(card(i, "NVIDIA H200", 141, "9.0", compute_mode="prohibited") for i in range(8))
    (finding,) = judge("gpu-compute-mode", gpu_host(cards))
    assert finding.title == "compute mode of GPU 0-7 is prohibited"
    assert finding.fix == "Set it back: `sudo nvidia-smi -c DEFAULT`."


def test_persistence_is_a_note_and_does_not_matter_everywhere():
    assert one("gpu-persistence", persistence=False).severity == "info"
    for facts in (desktop(), gb10(), host(l40s(), gpus=inventory(gpu(0, persistence=False)), system={"wsl": True})):
        assert verdicts(judge("gpu-persistence", facts)) == [("skip", "gpu-persistence")]


def test_lanes_that_all_cards_or_a_desktop_lack_are_the_boards():
    alike = gpu_host(tuple(card(i, "NVIDIA L40S", 45, "8.9", pcie_width=8) for i in range(4)))
    (finding,) = judge("gpu-pcie", alike)
    assert (finding.verdict, finding.title) == ("pass", "PCIe x8 or more; GPU 0-3 could have more")
    (finding,) = judge("gpu-pcie", desktop())
    assert (finding.verdict, finding.title) == ("pass", "PCIe x4 or more; GPU 1 could have more")


def test_the_generation_drops_while_a_gpu_idles_and_is_not_judged():
    assert one("gpu-pcie", pcie_generation=1, pcie_generation_max=5).verdict == "pass"


def test_lanes_that_cannot_be_judged():
    narrow = (card(0, "NVIDIA H200", 141, "9.0"), card(1, "NVIDIA H200", 141, "9.0", pcie_width=1))
    assert judge("gpu-pcie", gpu_host(narrow, iommu=IommuFacts(virtual=True)))[0].verdict == "unknown"
    silent = gpu_host((card(0, "NVIDIA H200", 141, "9.0", pcie_width=None),))
    assert judge("gpu-pcie", silent)[0].verdict == "unknown"
    for facts in (gb10(), rack()):
        assert judge("gpu-pcie", facts)[0].verdict == "skip"

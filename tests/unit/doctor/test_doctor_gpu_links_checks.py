"""NVLink, the switch fabric and direct access between GPUs: what passes, what warns or fails, what cannot be told."""

from dataclasses import replace

import pytest

from nimctl.core.facts import FabricManagerFacts, IommuFacts, NvidiaKernelFacts
from nimctl.core.gpus import Fabric
from nimctl.doctor.checks.gpu_words import is_data_centre, is_rack, is_sxm
from nimctl.doctor.model import Needs
from tests.unit.doctor.gpu_hosts import (
    DRIVER,
    JOINED,
    NO_FABRIC,
    ampere,
    blackwell,
    board,
    card,
    desktop,
    gb10,
    gpu_host,
    hopper,
    l40s,
    links,
    rack,
)
from tests.unit.doctor.hosts import DEMO, gpu, host, judge, verdicts, without_gpus

LINKS = ("ib-umad", "fabric-manager", "fabric", "nvlink", "p2p", "acs")
WAITING = Fabric("in-progress")
NOT_BEGUN = Fabric("not-started")


def of(facts, *checks, needs=None):
    """Verdicts and ids of these checks; of all by default."""
    return [v for check in checks or LINKS for v in verdicts(judge(check, facts, needs or Needs(recipe=DEMO)))]


def failures(facts):
    return [name for verdict, name in of(facts) if verdict == "fail"]


def manager(service, version=DRIVER):
    return FabricManagerFacts(version, service)


def h200s(**changes):
    return board(8, "NVIDIA H200", 141, "9.0", **changes)


def b200s(**changes):
    return board(8, "NVIDIA B200", 180, "10.0", **changes)


@pytest.mark.parametrize("check", LINKS)
def test_without_gpus_nothing_is_asked_of_them(check):
    assert of(host(gpus=without_gpus()), check) == [("skip", check)]
    assert of(hopper(), check, needs=Needs(recipe=DEMO, gpus="none")) == [("skip", check)]
    assert of(hopper(), check, needs=Needs(recipe=DEMO, gpus="99")) == [("skip", check)]


@pytest.mark.parametrize(
    ("name", "sxm", "rack_", "data_centre"),
    [
        ("NVIDIA H200", True, False, True),
        ("NVIDIA H200 NVL", False, False, True),
        ("NVIDIA H100 80GB HBM3", True, False, True),
        ("NVIDIA H100 PCIe", False, False, True),
        ("NVIDIA A100-SXM4-80GB", True, False, True),
        ("NVIDIA A100 80GB PCIe", False, False, True),
        ("NVIDIA B300 SXM6 AC", True, False, True),
        ("NVIDIA GB200", True, True, True),
        ("NVIDIA GH200 480GB", False, False, True),
        ("NVIDIA L40S", False, False, True),
        ("Tesla V100-SXM2-32GB", False, False, True),  # wired GPU to GPU, without switches
        ("Tesla T4", False, False, True),
        ("NVIDIA GB10", False, False, False),
        ("NVIDIA RTX A6000", False, False, False),
        ("NVIDIA GeForce RTX 4090", False, False, False),
        (None, False, False, False),
    ],
)
def test_kinds_of_gpus_by_their_names(name, sxm, rack_, data_centre):
    one = gpu(0, name=name)
    assert (is_sxm(one), is_rack(one), is_data_centre(one)) == (sxm, rack_, data_centre)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (blackwell(), ("pass", "ib-umad")),
        (blackwell(modules=("nvidia",)), ("pass", "ib-umad")),  # up all the same
        (blackwell(modules=("nvidia",), cards=b200s(fabric=WAITING), fabric_manager=manager("failed")),
         ("fail", "ib-umad-missing")),
        (blackwell(modules=None, cards=b200s(fabric=WAITING)), ("unknown", "ib-umad")),
        (blackwell(modules=(), cards=b200s(fabric=None)), ("unknown", "ib-umad")),  # its manager runs
        (blackwell(modules=(), cards=b200s(fabric=None), fabric_manager=manager("failed"),
                   iommu=IommuFacts(virtual=True)), ("unknown", "ib-umad")),
        (hopper(), ("skip", "ib-umad")),
        (rack(), ("skip", "ib-umad")),
    ],
)  # fmt: skip
def test_ib_umad(facts, expected):
    assert of(facts, "ib-umad") == [expected]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (hopper(), ("pass", "fabric-manager")),
        (ampere(), ("pass", "fabric-manager")),
        (hopper(fabric_manager=manager("active", None)), ("pass", "fabric-manager")),
        # A service that is down: a proof unless the fabric is up nevertheless.
        (ampere(fabric_manager=manager("failed")), ("fail", "fabric-manager-down")),
        (hopper(fabric_manager=manager("inactive"), cards=h200s(fabric=WAITING)), ("fail", "fabric-manager-down")),
        (hopper(fabric_manager=manager("failed")), ("warn", "fabric-manager-down")),
        (ampere(fabric_manager=manager("activating")), ("warn", "fabric-manager-down")),
        # No service of this host: it may be in a driver container.
        (hopper(fabric_manager=manager("absent", None)), ("pass", "fabric-manager")),
        (ampere(fabric_manager=manager("absent", None)), ("warn", "fabric-manager-down")),
        (hopper(fabric_manager=manager("absent", None), cards=h200s(fabric=WAITING)), ("fail", "fabric-manager-down")),
        (ampere(fabric_manager=manager(None, None)), ("unknown", "fabric-manager")),
        # Another version than the driver's.
        (hopper(fabric_manager=manager("active", "575.57.08-1")), ("warn", "fabric-manager-mismatch")),
        (ampere(fabric_manager=manager("failed", "575.57.08-1")), ("fail", "fabric-manager-mismatch")),
        (ampere(fabric_manager=manager(None, "575.57.08-1")), ("warn", "fabric-manager-mismatch")),
        (ampere(fabric_manager=manager("active", "580.95.05-0ubuntu0.24.04.1")), ("pass", "fabric-manager")),
        # Where none is needed.
        (l40s(8), ("skip", "fabric-manager")),
        (rack(), ("skip", "fabric-manager")),
        (gb10(), ("skip", "fabric-manager")),
        (gpu_host(board(4, "NVIDIA A100-SXM4-80GB", 80, "8.0", 12, fabric=None)), ("skip", "fabric-manager")),
    ],
)
def test_fabric_manager(facts, expected):
    assert of(facts, "fabric-manager") == [expected]


def test_in_a_virtual_machine_the_host_may_run_the_fabric_manager():
    guest = ampere(
        fabric_manager=manager("absent", None),
        iommu=IommuFacts(virtual=True),
        nvidia_kernel=NvidiaKernelFacts(pci_gpus=8, nvswitches=0),
    )
    assert of(guest, "fabric-manager") == [("unknown", "fabric-manager")]


@pytest.mark.parametrize("service", ["inactive", "failed", "activating", "absent", None])
@pytest.mark.parametrize(
    ("fabric", "expected"), [(JOINED, ("pass", "fabric-manager")), (None, ("unknown", "fabric-manager"))]
)
def test_a_virtual_machine_without_switches_has_no_use_for_a_fabric_manager(service, fabric, expected):
    parts = {"iommu": IommuFacts(virtual=True), "nvidia_kernel": NvidiaKernelFacts(pci_gpus=8, nvswitches=0)}
    for version in (DRIVER, "570.86.15"):
        guest = hopper(cards=h200s(fabric=fabric), fabric_manager=manager(service, version), **parts)
        assert of(guest, "fabric-manager") == [expected]


def test_a_virtual_machine_with_switches_or_whose_fabric_is_down_needs_one():
    virtual = IommuFacts(virtual=True)
    assert of(ampere(fabric_manager=manager("failed"), iommu=virtual), "fabric-manager") == [
        ("fail", "fabric-manager-down")
    ]
    without = NvidiaKernelFacts(pci_gpus=8, nvswitches=0)
    waiting = hopper(
        cards=h200s(fabric=WAITING), fabric_manager=manager("failed"), iommu=virtual, nvidia_kernel=without
    )
    assert failures(waiting) == ["fabric-manager-down"]


def test_what_to_do_about_the_fabric_manager():
    (down,) = judge("fabric-manager", ampere(fabric_manager=manager("failed")))
    assert "`sudo systemctl enable --now nvidia-fabricmanager`" in down.fix
    (other,) = judge("fabric-manager", ampere(fabric_manager=manager("failed", "575.57.08-1")))
    assert other.title == "fabric manager 575.57.08-1, driver 580.95.05"
    assert "nvidia-fabricmanager*=580.95.05*" in other.fix


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (hopper(), ("pass", "fabric")),
        (hopper(cards=h200s(fabric=WAITING)), ("fail", "gpu-fabric-down")),
        (hopper(cards=h200s(fabric=NOT_BEGUN)), ("fail", "gpu-fabric-down")),
        (hopper(cards=h200s(fabric=Fabric("completed", 999))), ("warn", "gpu-fabric-error")),
        (hopper(cards=h200s(fabric=Fabric("completed", 0, unhealthy=("degraded-bandwidth",)))),
         ("warn", "gpu-fabric-unhealthy")),
        (hopper(cards=h200s(fabric=None)), ("unknown", "fabric")),
        (ampere(), ("skip", "fabric")),
        (l40s(), ("skip", "fabric")),
        (rack(), ("pass", "fabric")),
        (rack(WAITING), ("warn", "gpu-fabric-down")),
        (gpu_host((card(0, "NVIDIA H100 80GB HBM3", 80, "9.0", fabric=WAITING),)), ("fail", "gpu-fabric-down")),
        (gpu_host((card(0, "NVIDIA H100 80GB HBM3", 80, "9.0", fabric=NOT_BEGUN),)), ("unknown", "fabric")),
    ],
)  # fmt: skip
def test_fabric(facts, expected):
    assert of(facts, "fabric") == [expected]


def test_a_gpu_outside_the_fabric_does_not_matter_when_it_is_not_chosen():
    cards = h200s()
    cards = (*cards[:7], replace(cards[7], fabric=WAITING))
    facts = hopper(cards=cards)
    assert failures(facts) == ["gpu-fabric-down"]
    (finding,) = judge("fabric", facts)
    assert finding.title == "GPU 7 has not joined the NVLink fabric"
    assert finding.evidence == ("GPU 7: in-progress",)
    assert of(facts, "fabric", needs=Needs(recipe=DEMO, gpus="0,1,2,3")) == [("pass", "fabric")]


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (blackwell(modules=("nvidia",), cards=b200s(fabric=WAITING, nvlinks_up=0, nvlinks_down=18),
                   fabric_manager=manager("failed")), "ib-umad-missing"),
        (hopper(cards=h200s(fabric=WAITING, nvlinks_up=0, nvlinks_down=18), fabric_manager=manager("failed")),
         "fabric-manager-down"),
        (hopper(cards=h200s(fabric=WAITING), fabric_manager=manager("failed", "570.1")), "fabric-manager-mismatch"),
        (hopper(cards=h200s(fabric=WAITING, nvlinks_down=2)), "gpu-fabric-down"),
    ],
)  # fmt: skip
def test_a_cause_fails_once_and_what_rests_on_it_is_skipped(facts, cause):
    facts = replace(facts, gpus=replace(facts.gpus, links=links(8, p2p=False, status="not-supported")))
    assert failures(facts) == [cause]
    assert not [v for v in of(facts) if v[0] == "warn"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (hopper(), ("pass", "nvlink")),
        (hopper(cards=(*h200s()[:7], replace(h200s()[7], nvlinks_up=17, nvlinks_down=1))), ("warn", "nvlink-down")),
        (hopper(cards=h200s(nvlinks_up=0, nvlinks_down=18)), ("warn", "nvlink-down")),
        (hopper(cards=h200s(nvlinks_up=None, nvlinks_down=None)), ("unknown", "nvlink")),
        (hopper(cards=h200s(mig=True, nvlinks_down=18)), ("skip", "nvlink")),
        (l40s(), ("skip", "nvlink")),
    ],
)
def test_nvlink_on_boards(facts, expected):
    assert of(facts, "nvlink") == [expected]


def test_links_that_the_host_of_a_virtual_machine_turned_off_are_not_broken():
    def guest(*ups):
        cards = (replace(h200s()[i], nvlinks_up=up, nvlinks_down=18 - up) for i, up in enumerate(ups))
        return gpu_host(tuple(cards), links(len(ups)), iommu=IommuFacts(virtual=True))

    assert of(guest(0, 0), "nvlink") == [("unknown", "nvlink")]
    assert of(guest(18, 17), "nvlink") == [("warn", "nvlink-down")]
    bare = replace(guest(0, 0), iommu=IommuFacts(virtual=False))
    assert of(bare, "nvlink") == [("warn", "nvlink-down")]


@pytest.mark.parametrize(
    ("ups", "expected"),
    [
        ((12, 12), ("pass", "nvlink")),
        ((12, 8), ("warn", "nvlink-down")),
        ((12, 12, 0), ("pass", "nvlink")),  # the third has no bridge
        ((0, 0), ("pass", "nvlink")),
    ],
)
def test_nvlink_bridges_of_cards(ups, expected):
    cards = tuple(
        card(i, "NVIDIA H100 NVL", 94, "9.0", nvlinks_up=up, nvlinks_down=18 - up, fabric=NO_FABRIC)
        for i, up in enumerate(ups)
    )
    assert of(gpu_host(cards, links(len(cards))), "nvlink") == [expected]


def test_links_that_are_down_are_named():
    cards = (*h200s()[:7], replace(h200s()[7], nvlinks_up=17, nvlinks_down=1))
    (finding,) = judge("nvlink", hopper(cards=cards))
    assert finding.evidence == ("GPU 7: 17 up, 1 down",)
    assert "nvlink -s -i 7" in finding.fix


def without_access(facts, **changes):
    pairs = links(len(facts.gpus.gpus), **{"p2p": False, "status": "chipset-not-supported", **changes})
    return replace(facts, gpus=replace(facts.gpus, links=pairs))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (hopper(), ("pass", "p2p")),
        (without_access(hopper()), ("warn", "p2p-missing")),
        (without_access(rack()), ("warn", "p2p-missing")),
        (without_access(l40s()), ("pass", "p2p")),
        (desktop(), ("pass", "p2p")),
        (without_access(hopper(), p2p=None), ("unknown", "p2p")),
        (replace(l40s(), gpus=replace(l40s().gpus, links=())), ("unknown", "p2p")),
        (l40s(1), ("skip", "p2p")),
        (hopper(cards=h200s(mig=True)), ("skip", "p2p")),
    ],
)
def test_direct_access(facts, expected):
    assert of(facts, "p2p") == [expected]


def test_pairs_without_direct_access_are_counted_among_the_chosen():
    facts = without_access(hopper())
    (finding,) = judge("p2p", facts)
    assert finding.title == "no direct access between 28 of 28 pairs of GPUs"
    assert len(finding.evidence) == 16
    (two,) = judge("p2p", facts, Needs(recipe=DEMO, gpus="0,1"))
    assert two.evidence == ("GPU 0 and 1: chipset-not-supported",)


@pytest.mark.parametrize(
    ("iommu", "verdict", "name", "severity"),
    [
        (IommuFacts("passthrough", 0, virtual=False), "pass", "acs", "info"),
        (IommuFacts("off", 0, virtual=False), "pass", "acs", "info"),
        (IommuFacts("translated", 4, virtual=False), "warn", "iommu-translates", "warning"),
        (IommuFacts("translated", None, virtual=False), "warn", "iommu-translates", "info"),
        (IommuFacts("passthrough", 4, virtual=False), "warn", "acs-redirects", "info"),
        (IommuFacts("passthrough", None, virtual=False), "unknown", "acs", "info"),
        (IommuFacts(None, None, virtual=None), "unknown", "acs", "info"),
        (IommuFacts("translated", 4, virtual=True), "unknown", "acs", "info"),
    ],
)
def test_what_turns_back_traffic_on_the_pci_bus(iommu, verdict, name, severity):
    (finding,) = judge("acs", l40s(iommu=iommu))
    assert (finding.verdict, finding.id, finding.severity) == (verdict, name, severity)
    if verdict == "warn":
        assert "docs.nvidia.com/deeplearning/nccl" in finding.fix


@pytest.mark.parametrize(
    "facts",
    [hopper(), blackwell(), rack(), gb10(), desktop(), l40s(1)],
    ids=["hopper", "blackwell", "rack", "gb10", "desktop", "one"],
)
def test_where_no_traffic_goes_over_pci_nothing_is_said_of_it(facts):
    translated = replace(facts, iommu=IommuFacts("translated", 12, virtual=False))
    assert of(translated, "acs") == [("skip", "acs")]

"""GPU hosts that are well, each odd in its own way: on none of them has a check of GPUs anything to warn of."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from nimctl.core.facts import FabricManagerFacts, HostFacts, IommuFacts, NvidiaKernelFacts
from nimctl.core.gpus import Fabric, Gpu, GpuInventory, GpuLink, GpuProcess
from tests.unit.doctor.hosts import GIB, HEALTHY, gpu

DRIVER = "580.95.05"
JOINED = Fabric("completed", 0, clique=0)
NO_FABRIC = Fabric("not-supported", 0)


def links(count: int, *, p2p: bool | None = True, ancestor: str = "node", status: str = "ok") -> tuple[GpuLink, ...]:
    return tuple(GpuLink(a, b, ancestor, p2p, status) for a, b in combinations(range(min(count, 16)), 2))


def card(index: int, name: str, gib: int, capability: str, **changes: Any) -> Gpu:
    """A GPU of a server, quiet and well, on a PCI slot of 16 lanes."""
    return replace(
        gpu(index, name=name, compute_capability=capability, memory_total=gib * GIB, memory_free=gib * GIB - GIB // 2),
        **{
            "row_remap_pending": False,
            "row_remap_failed": False,
            "rows_remapped": 0,
            "pcie_generation": 1,
            "pcie_generation_max": 5,
            "pcie_width": 16,
            "pcie_width_max": 16,
            "nvlinks_up": None,
            "nvlinks_down": None,
            **changes,
        },
    )


def gpu_host(cards: tuple[Gpu, ...], pairs: tuple[GpuLink, ...] = (), **parts: Any) -> HostFacts:
    inventory = GpuInventory("ok", driver=DRIVER, cuda="13.0", gpus=cards, links=pairs)
    kernel = NvidiaKernelFacts(
        pci_gpus=len(cards), pci_gpus_bound=len(cards), nvswitches=0, modules=("nvidia", "nvidia_uvm")
    )
    iommu = IommuFacts(mode="passthrough", acs_bridges=0, virtual=False)
    return replace(HEALTHY, **{"gpus": inventory, "nvidia_kernel": kernel, "iommu": iommu, **parts})


def board(count: int, name: str, gib: int, capability: str, nvlinks: int = 18, **changes: Any) -> tuple[Gpu, ...]:
    """GPUs on a board that joins them by NVLink."""
    more = {"nvlinks_up": nvlinks, "nvlinks_down": 0, "fabric": JOINED, **changes}
    return tuple(card(i, name, gib, capability, **more) for i in range(count))


def hopper(*, cards: tuple[Gpu, ...] | None = None, **parts: Any) -> HostFacts:
    """HGX H200: four NVSwitches on the PCI bus, and the fabric manager runs."""
    gpus = cards or board(8, "NVIDIA H200", 141, "9.0")
    kernel = NvidiaKernelFacts(pci_gpus=len(gpus), pci_gpus_bound=len(gpus), nvswitches=4, modules=("nvidia",))
    manager = FabricManagerFacts(f"{DRIVER}-1", "active")
    return gpu_host(gpus, links(len(gpus)), **{"nvidia_kernel": kernel, "fabric_manager": manager, **parts})


def blackwell(*, modules: tuple[str, ...] | None = ("nvidia", "ib_umad"), **parts: Any) -> HostFacts:
    """HGX B200: its switches are InfiniBand devices."""
    kernel = NvidiaKernelFacts(pci_gpus=8, pci_gpus_bound=8, nvswitches=0, modules=modules)
    manager = FabricManagerFacts(DRIVER, "active")
    cards = parts.pop("cards", None) or board(8, "NVIDIA B200", 180, "10.0")
    return gpu_host(cards, links(8), **{"nvidia_kernel": kernel, "fabric_manager": manager, **parts})


def ampere(**parts: Any) -> HostFacts:
    """HGX A100: NVSwitches, and GPUs that know of no fabric state."""
    cards = board(8, "NVIDIA A100-SXM4-80GB", 80, "8.0", 12, fabric=None)
    return hopper(cards=cards, **parts)


def l40s(count: int = 4, **parts: Any) -> HostFacts:
    cards = tuple(card(i, "NVIDIA L40S", 45, "8.9", mig=None, fabric=NO_FABRIC) for i in range(count))
    return gpu_host(cards, links(count, ancestor="hostbridge"), **parts)


def _h100_pcie() -> HostFacts:
    # Without a bridge all links are down, and the ones that could be there are counted all the same.
    cards = tuple(
        card(i, "NVIDIA H100 PCIe", 80, "9.0", nvlinks_up=0, nvlinks_down=18, fabric=NO_FABRIC) for i in range(2)
    )
    return gpu_host(cards, links(2, ancestor="system"))


def _virtual() -> HostFacts:
    one = card(0, "NVIDIA H100 80GB HBM3", 80, "9.0", persistence=None, pcie_width=None, fabric=NO_FABRIC)
    return gpu_host((one,), iommu=IommuFacts(virtual=True), nvidia_kernel=NvidiaKernelFacts(pci_gpus=1, nvswitches=0))


def gb10(**parts: Any) -> HostFacts:
    """DGX Spark: a GPU without memory of its own."""
    one = card(
        0, "NVIDIA GB10", 0, "12.1", memory_total=None, memory_free=None, unified_memory=True, persistence=False,
        mig=None, ecc=None, ecc_uncorrected=None, pcie_width=1, row_remap_pending=None, row_remap_failed=None,
    )  # fmt: skip
    system = replace(HEALTHY.system, arch="aarch64", memory_total=120 * GIB, memory_available=115 * GIB)
    return gpu_host((one,), **{"system": system, **parts})


def rack(fabric: Fabric = JOINED, **parts: Any) -> HostFacts:
    """A tray of GB200 NVL72: its switches stand elsewhere, and no fabric manager runs on it."""
    cards = board(4, "NVIDIA GB200", 185, "10.0", fabric=replace(fabric, cluster="ab12"), pcie_width=1)
    manager = FabricManagerFacts(service="absent")
    return gpu_host(cards, links(4), **{"fabric_manager": manager, **parts})


def desktop(**changes: Any) -> HostFacts:
    """Two cards of a desktop: one draws the screen, and the board splits its lanes."""
    plain: dict[str, Any] = {
        "mig": None, "ecc": None, "ecc_uncorrected": None, "row_remap_pending": None, "row_remap_failed": None,
        "persistence": False,
    }  # fmt: skip
    screen = GpuProcess(1234, GIB // 2, "Xorg", graphics=True)
    first = card(0, "NVIDIA GeForce RTX 4090", 24, "8.9", **plain, processes=(screen,), memory_free=23 * GIB)
    second = card(1, "NVIDIA GeForce RTX 4090", 24, "8.9", **plain, pcie_width=4)
    pairs = links(2, p2p=False, ancestor="hostbridge", status="gpu-not-supported")
    facts = gpu_host((replace(first, **changes), second), pairs)
    return replace(facts, iommu=IommuFacts(mode="translated", acs_bridges=None, virtual=False))


WELL: Mapping[str, HostFacts] = {
    "8xH200 HGX": hopper(),
    "8xB200 HGX": blackwell(),
    "8xA100 HGX": ampere(),
    "2xH100 PCIe": _h100_pcie(),
    "4xL40S": l40s(),
    "H100 in a virtual machine": _virtual(),
    "GB10": gb10(),
    "GB200 tray": rack(),
    "desktop": desktop(),
    "A100": gpu_host((card(0, "NVIDIA A100 80GB PCIe", 80, "8.0", fabric=None),)),
}

"""Healthy machines, a family each: what situations change a few facts of.

They are the healthy hosts of the checks' own tests with what those leave open told: a new fact needs a value there, and
none here.
"""

from collections.abc import Mapping
from dataclasses import replace

from nimctl.core.facts import (
    CacheFacts,
    DiskFacts,
    HostFacts,
    HostReach,
    ImageAccess,
    ImageFacts,
    IommuFacts,
    NetworkFacts,
    NvidiaKernelFacts,
    SecurityFacts,
)
from nimctl.core.gpus import GpuInventory
from tests.unit.doctor.gpu_hosts import JOINED, NO_FABRIC, WELL, board, card, desktop, links
from tests.unit.doctor.hosts import GIB, host
from tests.unit.doctor.system_hosts import DEBIAN, H200_UBUNTU, KERNEL, ROCKY, SPARK, WSL

DRIVER = "580.159.03"
IMAGE = "nimctl/cuda:0.1.0"
_HUB = "https://huggingface.co/"
_REACHED = NetworkFacts(
    reached=(
        HostReach(_HUB, "weights", "ok", skew=0.4),
        HostReach("https://cas-server.xethub.hf.co/", "weights files", "ok", skew=0.6),
        HostReach("https://nvcr.io/", "image", "ok", skew=0.5),
    )
)
_IMAGE_GRANTED = ImageAccess(
    "nvcr.io/nim/moonshotai/kimi-k2.5-turbo:1.0.0", "docker-login", digest="sha256:" + "0" * 64
)
_PCI_ID = {"9.0": "2335", "10.0": "2901", "8.0": "20b2", "8.9": "26b9", "12.0": "2b85", "12.1": "2e12"}


def _machine(cards: HostFacts, system: HostFacts = H200_UBUNTU) -> HostFacts:
    """The GPUs, fabric and IOMMU of one host in the system of another, with network, image and cache told."""
    gpus = cards.gpus.gpus
    count = len(gpus)
    kernel = replace(
        KERNEL,
        pci_gpus=count,
        pci_gpus_bound=count,
        gpu_drivers={"nvidia": count},
        gpu_ids=tuple(sorted({_PCI_ID[g.compute_capability or ""] for g in gpus})),
        nvswitches=cards.nvidia_kernel.nvswitches,
        modules=tuple(sorted({*(cards.nvidia_kernel.modules or ()), *(KERNEL.modules or ())})),
        device_nodes=(*(f"nvidia{g.index}" for g in gpus), "nvidia-uvm", "nvidiactl"),
        installed=system.nvidia_kernel.installed,
        installed_path=system.nvidia_kernel.installed_path,
        installed_known=system.nvidia_kernel.installed_known,
    )
    manager = cards.fabric_manager
    if manager.service == "active":
        manager = replace(manager, version=DRIVER, source="nv-fabricmanager")
    spec = replace(system.cdi[0], devices=(*(str(g.index) for g in gpus), "all"), driver=DRIVER)
    return replace(
        system,
        gpus=replace(cards.gpus, driver=DRIVER),
        nvidia_kernel=kernel,
        fabric_manager=manager,
        iommu=replace(cards.iommu, acs_bridges=0 if count > 1 else cards.iommu.acs_bridges),
        cdi=(spec,),
        toolkit=replace(
            system.toolkit,
            ctk="/usr/bin/nvidia-ctk",
            config="/etc/nvidia-container-runtime/config.toml",
            mode="auto",
            no_cgroups=False,
        ),
        docker=replace(
            system.docker,
            cdi_devices=tuple(f"nvidia.com/gpu={name}" for name in spec.devices),
            runtime_paths={"nvidia": "/usr/bin/nvidia-container-runtime", "runc": "runc"},
        ),
        network=_REACHED,
        image=ImageFacts(IMAGE, present=True, architecture=_image_architecture(system)),
        credentials=replace(system.credentials, image=_IMAGE_GRANTED, store="secretservice", config_mode="0600"),
    )


def _image_architecture(system: HostFacts) -> str:
    return "arm64" if system.docker.architecture == "aarch64" else "amd64"


def _cards(count: int, name: str, gib: int, capability: str) -> HostFacts:
    gpus = tuple(card(i, name, gib, capability, fabric=NO_FABRIC) for i in range(count))
    return replace(WELL["4xL40S"], gpus=GpuInventory("ok", cuda="13.0", gpus=gpus, links=links(count)))


def _virtual() -> HostFacts:
    one = card(0, "NVIDIA H100 80GB HBM3", 80, "9.0", pcie_width=None, fabric=NO_FABRIC)
    return replace(
        WELL["H100 in a virtual machine"],
        gpus=GpuInventory("ok", cuda="13.0", gpus=(one,)),
        iommu=IommuFacts("off", 0, virtual=True),
    )


def _rack() -> HostFacts:
    arm = host(H200_UBUNTU, system={"arch": "aarch64", "cpus": 144}, docker={"architecture": "aarch64"})
    return _machine(WELL["GB200 tray"], arm)


def _seventy_two() -> HostFacts:
    """GPUs of a whole rack in one system, which no product has and nothing forbids."""
    gpus = board(72, "NVIDIA H200", 141, "9.0", fabric=JOINED)
    return replace(WELL["8xH200 HGX"], gpus=GpuInventory("ok", cuda="13.0", gpus=gpus, links=links(72)))


def _wsl() -> HostFacts:
    one = replace(desktop().gpus.gpus[1], index=0, name="NVIDIA GeForce RTX 5090", compute_capability="12.0")
    whole = _machine(replace(WSL, gpus=GpuInventory("ok", cuda="13.0", gpus=(one,)), iommu=WSL.iommu), WSL)
    return replace(
        whole,
        gpus=replace(whole.gpus, driver="581.57"),
        nvidia_kernel=WSL.nvidia_kernel,
        cdi=(),
        docker=replace(whole.docker, cdi_devices=()),
    )


def _no_gpu() -> HostFacts:
    """A server without GPU and without anything of NVIDIA's."""
    system = host(
        H200_UBUNTU,
        gpus=GpuInventory("no-library", detail="libnvidia-ml.so.1 was not found"),
        nvidia_kernel=NvidiaKernelFacts(
            pci_gpus=0, pci_gpus_bound=0, gpu_drivers={}, gpu_ids=(), nvswitches=0, modules=(), installed_known=True,
            device_nodes=(), nodes_denied=(), dxg=False, infiniband=(),
        ),
        docker={"runtimes": ("io.containerd.runc.v2", "runc"), "runtime_paths": {"runc": "runc"}, "cdi_devices": ()},
        system={"product": "PowerEdge R660"},
        toolkit={"version": None, "source": None, "hook": None},
        iommu=IommuFacts("off", None, virtual=False),
        network=_REACHED,
    )  # fmt: skip
    return replace(
        system,
        cdi=(),
        docker=replace(system.docker, config=replace(system.docker.config, runtimes=())),  # type: ignore[type-var]
        image=ImageFacts("nimctl/cpu:0.1.0", present=True, architecture="amd64"),
        credentials=replace(system.credentials, store="secretservice"),
    )


_SELINUX = SecurityFacts(
    selinux="enforcing", selinux_devices=True, apparmor=False, secure_boot=True, lockdown="integrity"
)


def _rocky() -> HostFacts:
    whole = _machine(WELL["8xH200 HGX"], host(ROCKY, security=_SELINUX))
    labelled = ("name=seccomp,profile=builtin", "name=selinux", "name=cgroupns")
    cache = replace(whole.cache, selinux_label="system_u:object_r:container_file_t:s0")
    return replace(whole, docker=replace(whole.docker, security_options=labelled), cache=cache)


def _nfs(facts: HostFacts) -> HostFacts:
    disk = DiskFacts(
        "/data", "nfs4", "0:55", 100_000 * GIB, 40_000 * GIB, 10**9, read_only=False, options=("rw", "hard", "vers=4.2")
    )
    cache: CacheFacts = replace(facts.cache, disk=disk)
    return replace(facts, cache=cache)


_DGX = _machine(WELL["8xH200 HGX"])

BASES: Mapping[str, HostFacts] = {
    "dgx-h200": _DGX,
    "hgx-b200": _machine(WELL["8xB200 HGX"]),
    "hgx-a100": _machine(WELL["8xA100 HGX"]),
    "h100-pcie": _machine(WELL["2xH100 PCIe"]),
    "l40s": _machine(WELL["4xL40S"]),
    "rtx-4090": _machine(_cards(4, "NVIDIA GeForce RTX 4090", 24, "8.9")),
    "vm-h100": _machine(_virtual()),
    "gb200-tray": _rack(),
    "gb10": _machine(WELL["GB10"], SPARK),
    "wsl2": _wsl(),
    "rocky-h200": _rocky(),
    "debian-h200": _machine(WELL["8xH200 HGX"], DEBIAN),
    "nfs-h200": _nfs(_DGX),
    "72-gpus": _machine(_seventy_two()),
    "no-gpu": _no_gpu(),
}

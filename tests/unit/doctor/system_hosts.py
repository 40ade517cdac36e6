"""Whole hosts that are well, each of another kind: system, kernel, limits and confinement as such a host shows them."""

from dataclasses import replace

from nimctl.core.facts import (
    FabricManagerFacts,
    HostFacts,
    IommuFacts,
    LimitFacts,
    NvidiaKernelFacts,
    SecurityFacts,
)
from tests.unit.doctor.hosts import GIB, HEALTHY, gpu, host, inventory

LIMITS = LimitFacts(
    memlock=8 * 2**20,
    open_files=1024,
    open_files_hard=1_048_576,
    processes=8_254_000,
    pid_max=4_194_304,
    threads_max=16_508_000,
    cgroup_pids=5_447_640,
)
UBUNTU_SECURITY = SecurityFacts(selinux="disabled", apparmor=True, secure_boot=True, lockdown="integrity")
MODULES = ("mlx5_core", "mlx5_ib", "nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm")
KERNEL = NvidiaKernelFacts(
    pci_gpus=8,
    pci_gpus_bound=8,
    gpu_drivers={"nvidia": 8},
    gpu_ids=("2335",),
    nvswitches=4,
    module="580.159.03",
    module_open=True,
    modules=MODULES,
    installed="580.159.03",
    installed_path="updates/dkms/nvidia.ko.zst",
    installed_known=True,
    library="580.159.03",
    device_nodes=(*(f"nvidia{i}" for i in range(8)), "nvidia-uvm", "nvidiactl"),
    nodes_denied=(),
    dev_char_links=True,
    dxg=False,
    infiniband=tuple(f"mlx5_{i}" for i in range(10)),
)

H200_UBUNTU = host(
    gpus={"driver": "580.159.03"},
    system={"container": "none", "product": "DGXH200", "shm_free": 999 * GIB},
    limits=LIMITS,
    security=UBUNTU_SECURITY,
    nvidia_kernel=KERNEL,
    fabric_manager=FabricManagerFacts("580.159.03", "active", "nv-fabricmanager"),
    iommu=IommuFacts("passthrough", 0, virtual=False),
)

_GB10 = gpu(
    0,
    name="NVIDIA GB10",
    architecture="blackwell",
    compute_capability="12.1",
    memory_total=None,
    memory_free=None,
    unified_memory=True,
    ecc=None,
    mig=None,
)
SPARK = host(
    H200_UBUNTU,
    system={
        "os_version": "24.04",
        "kernel": "6.14.0-1015-nvidia",
        "arch": "aarch64",
        "cpus": 20,
        "memory_total": 119 * GIB,
        "memory_available": 112 * GIB,
        "shm_total": 59 * GIB,
        "shm_free": 59 * GIB,
        "product": "NVIDIA_DGX_Spark",
    },
    docker={"architecture": "aarch64"},
    gpus=inventory(_GB10),
    nvidia_kernel=replace(
        KERNEL,
        pci_gpus=1,
        pci_gpus_bound=1,
        gpu_drivers={"nvidia": 1},
        gpu_ids=("2e12",),
        nvswitches=0,
        installed_path="kernel/nvidia-580-open/nvidia.ko",
        infiniband=("rocep1s0f0", "rocep1s0f1"),
    ),
    fabric_manager=FabricManagerFacts(service="absent"),
)

WSL = host(
    H200_UBUNTU,
    system={
        "kernel": "6.6.87.2-microsoft-standard-WSL2",
        "wsl": True,
        "memory_total": 31 * GIB,
        "memory_available": 28 * GIB,
        "shm_total": 15 * GIB,
        "shm_free": 15 * GIB,
        "product": None,
    },
    gpus=inventory(gpu(0, name="NVIDIA GeForce RTX 5090", architecture="blackwell"), driver="581.57"),
    nvidia_kernel=NvidiaKernelFacts(
        pci_gpus=0, pci_gpus_bound=0, gpu_drivers={}, gpu_ids=(), nvswitches=0, modules=(), device_nodes=(), dxg=True
    ),
    docker={"security_options": ("name=seccomp,profile=builtin", "name=cgroupns")},
    security=SecurityFacts(selinux="disabled", apparmor=False, secure_boot=None, lockdown=None),
    limits=replace(LIMITS, cgroup_pids=-1),
    fabric_manager=FabricManagerFacts(service="absent"),
    iommu=IommuFacts("off", 0, virtual=True),
)

DEBIAN = host(
    H200_UBUNTU,
    system={"os_id": "debian", "os_version": "13", "os_name": "Debian GNU/Linux 13 (trixie)", "product": "AS -8125GS"},
    security=SecurityFacts(selinux="disabled", apparmor=True, secure_boot=False, lockdown="none"),
)

ROCKY = host(
    H200_UBUNTU,
    system={"os_id": "rocky", "os_version": "9.6", "os_name": "Rocky Linux 9.6 (Blue Onyx)"},
    docker={"security_options": ("name=seccomp,profile=builtin", "name=cgroupns")},
    security=SecurityFacts(selinux="enforcing", selinux_devices=False, apparmor=False, secure_boot=True),
    nvidia_kernel=replace(KERNEL, installed=None, installed_path="extra/nvidia.ko.xz", installed_known=False),
    limits=replace(LIMITS, open_files_hard=262_144),
)

HOSTS: dict[str, HostFacts] = {
    "Ubuntu with 8 x H200": H200_UBUNTU,
    "DGX Spark": SPARK,
    "WSL 2": WSL,
    "Debian": DEBIAN,
    "Rocky Linux": ROCKY,
    "little is known": HEALTHY,
}

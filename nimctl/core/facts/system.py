"""Facts about the operating system, the kernel and the machine. Sizes in bytes; what could not be seen is None."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SystemFacts:
    """Operating system, processor architecture (`x86_64`, `aarch64`), memory and who asks.

    `container` names the kind of container this process itself runs in (docker, podman, ...), "none" outside of one.
    `memory_limit` is the least that the control groups above this process allow, None where they allow all of it.
    """

    os_id: str | None = None
    os_version: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    arch: str | None = None
    cpus: int | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    memory_limit: int | None = None
    shm_total: int | None = None
    shm_free: int | None = None
    uid: int | None = None
    groups: tuple[str, ...] = ()
    wsl: bool | None = None
    container: str | None = None
    product: str | None = None  # what the firmware calls the machine, such as "DGXH200"


@dataclass(frozen=True)
class LimitFacts:
    """Limits of this process and of the kernel. -1 is "unlimited"; `memlock` in bytes, the others are counts.

    What counts now are the soft limits; a program may raise them itself up to the hard ones.
    `pid_max` and `threads_max` bound the whole machine, `cgroup_pids` the cgroup of this process.
    """

    memlock: int | None = None
    open_files: int | None = None
    open_files_hard: int | None = None
    processes: int | None = None
    pid_max: int | None = None
    threads_max: int | None = None
    cgroup_pids: int | None = None


@dataclass(frozen=True)
class SecurityFacts:
    """What confines programs here: `selinux` is enforcing, permissive or disabled; `apparmor` whether it is on.

    `selinux_devices` tells whether its policy lets containers use devices that they were given, such as GPUs:
    https://github.com/containers/container-selinux/pull/306. `lockdown` is the kernel's lockdown mode (none, integrity,
    confidentiality), `secure_boot` what the firmware says.
    """

    selinux: Literal["enforcing", "permissive", "disabled"] | None = None
    selinux_devices: bool | None = None
    apparmor: bool | None = None
    secure_boot: bool | None = None
    lockdown: str | None = None


@dataclass(frozen=True)
class NvidiaKernelFacts:
    """NVIDIA's parts in the kernel and on the PCI bus, seen without the driver's library.

    `pci_gpus` and `nvswitches` count PCI devices of NVIDIA by class, `pci_gpus_bound` those that the nvidia module
    drives. `gpu_drivers` counts the GPUs by the kernel driver that holds them ("none": no driver does), `gpu_ids` are
    their PCI device ids, each once, such as "2335". HGX B200 has its switches behind ConnectX cards, and `nvswitches`
    is 0 there.

    `module` is the version of the loaded kernel module, `module_open` whether it is the open one, `modules` the names
    of those loaded (nvidia, nvidia_uvm, nouveau, vfio_pci, ib_umad, ...). `installed` is the version of the module on
    disk for the running kernel and `installed_path` the file below /lib/modules/<kernel>; None where there is none.
    `installed_known` is False where that could not be told: the module index cannot be read, or a file is there that
    does not tell its version cheaply.

    `library` is the version in the name of the driver's library on disk (libnvidia-ml.so), whether it works or not.
    `library_folder` is where it lies when no program finds it by itself: drivers that a container or an image of a
    cloud brings have a folder of their own.

    `device_nodes` are the names below /dev, `nodes_denied` those of them that this user may not open; `dev_char_links`
    whether each has its link in /dev/char, which systemd needs:
    https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    `dxg` tells whether /dev/dxg is there, through which WSL 2 reaches the driver in Windows.
    """

    pci_gpus: int | None = None
    pci_gpus_bound: int | None = None
    gpu_drivers: Mapping[str, int] | None = None
    gpu_ids: tuple[str, ...] | None = None
    nvswitches: int | None = None
    module: str | None = None
    module_open: bool | None = None
    modules: tuple[str, ...] | None = None
    installed: str | None = None
    installed_path: str | None = None
    installed_known: bool = False
    library: str | None = None
    library_folder: str | None = None
    device_nodes: tuple[str, ...] | None = None
    nodes_denied: tuple[str, ...] | None = None
    dev_char_links: bool | None = None
    dxg: bool | None = None
    infiniband: tuple[str, ...] | None = None  # names below /sys/class/infiniband


@dataclass(frozen=True)
class FabricManagerFacts:
    """NVIDIA's fabric manager: installed version, and what systemd says of its service (active, failed, inactive...).

    `service` is "absent" when systemd knows no such unit, None where systemd cannot be asked. `source` is who told the
    version; where it is None, the package database may know (`HostFacts.packages`).
    """

    version: str | None = None
    service: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class IommuFacts:
    """Whether an IOMMU translates DMA (`mode` is translated, passthrough or off), and PCI access control on the way.

    `mode` is that of NVIDIA's GPUs where there are any. `acs_bridges` counts the PCI bridges above them that redirect
    peer-to-peer traffic to the root; only root can read that, else None.
    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#pci-access-control-services-acs
    """

    mode: Literal["translated", "passthrough", "off"] | None = None
    acs_bridges: int | None = None
    virtual: bool | None = None  # inside a virtual machine

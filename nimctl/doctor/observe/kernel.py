"""NVIDIA's devices and modules as the kernel shows them, and what lies between GPUs on the PCI bus."""

import os
import platform
import re
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from nimctl.core.facts import IommuFacts, NvidiaKernelFacts
from nimctl.doctor.observe.files import is_there, names, read
from nimctl.doctor.observe.module_file import find_module
from nimctl.doctor.observe.pci import PciDevice, nvidia_devices, redirecting_bridges

# The modules that decide over GPUs, or over how they reach each other.
_MODULES = re.compile(
    r"nvidia(_\w+)?|nouveau|nova_core|nova_drm|vfio_pci|nv_peer_mem|gdrdrv|ib_umad|ib_uverbs|ib_core|mlx5_\w+"
)
_VERSION = re.compile(r"\s(\d+\.\d+(?:\.\d+)*)\s")
_VIRTUAL_MACHINES = re.compile(r"qemu|kvm|vmware|virtual|xen|openstack|google compute|bochs|parallels", re.I)
# Where distributions keep libraries; the driver's own installer uses the same.
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "lib64")
# Where others bring the driver: NVIDIA's driver container (the root that the container toolkit's own config.toml
# proposes), and the installer of Container-Optimized OS, as GKE and as its documentation start it:
# https://pkg.go.dev/cos.googlesource.com/cos/tools.git/src/cmd/cos_gpu_installer
_ELSEWHERE = (
    *(f"run/nvidia/driver/{folder}" for folder in _LIBRARIES[:3]),
    "home/kubernetes/bin/nvidia/lib64",
    "var/lib/nvidia/lib64",
)
_LIBRARY = re.compile(r"libnvidia-ml\.so\.(\d+\.\d[\d.]*)$")


def node_number(path: Path) -> tuple[int, int] | None:
    """Major and minor number of a device node; None for what is no device."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISCHR(found.st_mode) else None


def look_at_nvidia_kernel(
    root: Path = Path("/"), *, number_of: Callable[[Path], tuple[int, int] | None] = node_number
) -> NvidiaKernelFacts:
    """Modules, PCI devices and device nodes below `root`; `number_of` says which device a node is."""
    devices = nvidia_devices(root)
    gpus = None if devices is None else [d for d in devices if d.is_gpu]
    drivers = None if gpus is None else Counter(d.driver or "none" for d in gpus)
    running = read(root / "proc/driver/nvidia/version") or ""
    told = _VERSION.search(running.partition("\n")[0] + " ")
    kernel = read(root / "proc/sys/kernel/osrelease") or platform.release()
    on_disk = find_module(root, kernel)
    nodes = _device_nodes(root / "dev")
    return NvidiaKernelFacts(
        pci_gpus=None if gpus is None else len(gpus),
        pci_gpus_bound=None if drivers is None else drivers["nvidia"],
        gpu_drivers=None if drivers is None else dict(sorted(drivers.items())),
        gpu_ids=None if gpus is None else tuple(sorted({d.device for d in gpus if d.device})),
        nvswitches=None if devices is None else sum(d.is_nvswitch for d in devices),
        module=read(root / "sys/module/nvidia/version") or (told[1] if told else None),
        module_open="Open Kernel Module" in running if running else None,
        modules=_modules(root),
        installed=on_disk.version,
        installed_path=on_disk.path,
        installed_known=on_disk.known,
        library=_library(root),
        library_folder=_library_folder(root),
        device_nodes=nodes,
        nodes_denied=None if nodes is None else tuple(n for n in nodes if not _may_open(root / "dev" / n)),
        dev_char_links=_have_links(root / "dev", nodes or (), number_of),
        dxg=is_there(root / "dev/dxg"),
        infiniband=names(root / "sys/class/infiniband"),
    )


def look_at_iommu(root: Path = Path("/")) -> IommuFacts:
    """Whether DMA between GPUs is translated, or turned back by a bridge."""
    devices = nvidia_devices(root)
    gpus = tuple(d for d in devices or () if d.is_gpu)
    return IommuFacts(
        mode=_iommu_mode(root, gpus),
        acs_bridges=None if devices is None else redirecting_bridges(gpus),
        virtual=_is_virtual(root),
    )


def _library(root: Path) -> str | None:
    """The version of the library that programs load, by the link that names it: libnvidia-ml.so.1 -> ....580.95.05."""
    for folder in _LIBRARIES:
        with suppress(OSError):
            if found := _LIBRARY.search((root / folder / "libnvidia-ml.so.1").readlink().name):
                return found[1]
    return None


def _library_folder(root: Path) -> str | None:
    """A folder that holds the library and that no program looks into by itself; None where a usual one has it."""
    if any(is_there(root / folder / "libnvidia-ml.so.1") for folder in _LIBRARIES):
        return None
    return next((f"/{folder}" for folder in _ELSEWHERE if is_there(root / folder / "libnvidia-ml.so.1")), None)


def _modules(root: Path) -> tuple[str, ...] | None:
    loaded = read(root / "proc/modules", 1_000_000)
    if loaded is None:
        return None
    found = {line.split(" ", 1)[0] for line in loaded.splitlines()}
    found |= set(names(root / "sys/module") or ())  # also those that were built in
    return tuple(sorted(name for name in found if _MODULES.fullmatch(name)))


def _device_nodes(dev: Path) -> tuple[str, ...] | None:
    found = names(dev)
    # A folder such as nvidia-caps, or the folder of the same name that udev makes, is no device.
    return None if found is None else tuple(n for n in found if n.startswith("nvidia") and not (dev / n).is_dir())


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _have_links(dev: Path, nodes: tuple[str, ...], number_of: Callable[[Path], tuple[int, int] | None]) -> bool | None:
    numbers = [found for name in nodes if (found := number_of(dev / name)) is not None]
    if not numbers or names(dev / "char") is None:
        return None
    return all(is_there(dev / "char" / f"{major}:{minor}") for major, minor in numbers)


def _iommu_mode(root: Path, gpus: tuple[PciDevice, ...]) -> Literal["translated", "passthrough", "off"] | None:
    """By the kind of domain of the GPUs' groups, or where the kernel does not tell it, by how it was started.

    https://docs.kernel.org/admin-guide/abi-testing.html#abi-sys-kernel-iommu-groups-grp-id-type
    """
    groups = names(root / "sys/kernel/iommu_groups")
    if not groups:
        # Kernels before 3.6 aside, the folder is there wherever the kernel knows of IOMMUs, and empty when none is on.
        return "off" if groups == () else None
    kinds = {read(gpu.path / "iommu_group/type") for gpu in gpus} if gpus else set()
    kinds = (kinds or {read(root / "sys/kernel/iommu_groups" / g / "type") for g in groups}) - {None}
    if kinds:
        return "passthrough" if kinds == {"identity"} else "translated"
    started = (read(root / "proc/cmdline") or "").split()
    return "passthrough" if {"iommu=pt", "iommu.passthrough=1"} & set(started) else "translated"


def _is_virtual(root: Path) -> bool | None:
    """Whether this is a virtual machine: x86 processors tell it as a flag, others leave it to the firmware's words."""
    flags = re.search(r"^flags\s*:(.*)$", read(root / "proc/cpuinfo", 16_384) or "", re.MULTILINE)
    if flags:
        return "hypervisor" in flags[1].split()
    if is_there(root / "sys/firmware/devicetree/base/hypervisor"):
        return True
    words = [read(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")]
    told = " ".join(word for word in words if word)
    return bool(_VIRTUAL_MACHINES.search(told)) if told else None

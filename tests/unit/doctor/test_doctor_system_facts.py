"""Kernel, limits, confinement, NVIDIA's devices and fabric manager, read from folder trees as hosts show them."""

import os
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nimctl.core.facts import FabricManagerFacts, IommuFacts, LimitFacts, NvidiaKernelFacts, SecurityFacts
from nimctl.doctor.observe import system
from nimctl.doctor.observe.fabric_manager import look_at_fabric_manager
from nimctl.doctor.observe.kernel import look_at_iommu, look_at_nvidia_kernel
from nimctl.doctor.observe.limits import look_at_limits
from nimctl.doctor.observe.security import look_at_security
from nimctl.doctor.observe.system import look_at_system

KERNEL = "6.8.0-90-generic"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)  Tue Sep"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.06  Wed Jun 26 06:46:07 UTC 2024"
GIB = 2**30


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


# The system


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({"proc/1/cgroup": "0::/init.scope\n"}, "none"),
        ({"proc/1/cgroup": "0::/\n", ".dockerenv": ""}, "docker"),
        ({"proc/1/cgroup": "0::/\n", "run/.containerenv": ""}, "podman"),
        ({"proc/1/cgroup": "1:name=systemd:/docker/0123\n"}, "docker"),
        ({"proc/1/cgroup": "0::/kubepods/pod1/abc\n"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/machine.slice/libpod-abc.scope\n"}, "podman"),
        ({"proc/1/cgroup": "0::/\n", "run/systemd/container": "lxc\n"}, "lxc"),
        ({"proc/1/cgroup": "0::/init.scope\n", "run/systemd/container": "wsl\n"}, "none"),
        ({"proc/cpuinfo": ""}, "none"),
        ({}, None),
    ],
)
def test_the_container_that_this_process_is_in(tmp_path, files, container):
    assert look_at_system(put(tmp_path, files)).container == container


def test_the_machine_s_name_is_its_firmware_s(tmp_path):
    board = put(tmp_path / "board", {"sys/firmware/devicetree/base/model": "NVIDIA Jetson AGX Thor\0"})
    dgx = put(tmp_path / "dgx", {"sys/class/dmi/id/product_name": "DGXH200\n"})
    assert look_at_system(board).product == "NVIDIA Jetson AGX Thor"
    assert look_at_system(dgx).product == "DGXH200"
    assert look_at_system(tmp_path / "nothing").product is None


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to other groups")
def test_of_the_user_s_groups_only_those_are_kept_that_say_what_he_may(tmp_path, monkeypatch):
    known = {0: "root", 44: "video", 999: "docker", 27: "sudo", 5000: "payroll", 6000: "sockets", 7000: "v\udcff"}
    monkeypatch.setattr(system.os, "getgid", lambda: 5000)
    monkeypatch.setattr(system.os, "getgroups", lambda: [*known, 8000])
    monkeypatch.setattr(system.grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=known[gid]))
    assert look_at_system(tmp_path).groups == ("docker", "root")
    put(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/sda": "", "run/docker.sock": ""})
    for name, gid in {"dev/nvidia0": 44, "dev/nvidiactl": 7000, "dev/sda": 5000, "run/docker.sock": 6000}.items():
        os.chown(tmp_path / name, -1, gid)
    assert look_at_system(tmp_path).groups == ("docker", "root", "sockets", "v\\udcff", "video")


def test_memory_is_bounded_by_the_least_of_the_control_groups(tmp_path):
    unified = {
        "proc/self/cgroup": "0::/user.slice/job.scope\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/memory.max": f"{8 * GIB}\n",
    }
    separate = {
        "proc/self/cgroup": "4:memory:/slurm/job\n0::/\n",
        "sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert look_at_system(put(tmp_path / "unified", unified)).memory_limit == 8 * GIB
    assert look_at_system(put(tmp_path / "separate", separate)).memory_limit == 4 * GIB
    free = {**unified, "sys/fs/cgroup/user.slice/memory.max": "max\n"}
    assert look_at_system(put(tmp_path / "free", free)).memory_limit is None


def test_shared_memory_that_is_free_is_no_more_than_all_of_it():
    seen = look_at_system()
    assert seen.shm_total is not None
    assert 0 <= (seen.shm_free or 0) <= seen.shm_total


# Limits

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             127000               127000               processes
Max open files            1024                 1048576              files
Max locked memory         8388608              unlimited            bytes
"""


def test_limits_of_process_machine_and_control_group(tmp_path):
    put(
        tmp_path,
        {
            "proc/self/limits": LIMITS,
            "proc/sys/kernel/pid_max": "4194304\n",
            "proc/sys/kernel/threads-max": "8254000\n",
            "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
            "sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope/pids.max": "max\n",
            "sys/fs/cgroup/user.slice/user-1000.slice/pids.max": "10813\n",
            "sys/fs/cgroup/user.slice/pids.max": "max\n",
        },
    )
    assert look_at_limits(tmp_path) == LimitFacts(
        memlock=8388608,
        open_files=1024,
        open_files_hard=1048576,
        processes=127000,
        pid_max=4194304,
        threads_max=8254000,
        cgroup_pids=10813,
    )


def test_a_control_group_without_limit_is_not_one_that_is_not_told(tmp_path):
    put(tmp_path, {"proc/self/cgroup": "8:pids:/a\n", "sys/fs/cgroup/pids/a/pids.max": "max\n"})
    assert look_at_limits(tmp_path).cgroup_pids == -1
    assert look_at_limits(tmp_path / "nothing") == LimitFacts()


def test_a_group_s_name_does_not_lead_out_of_the_tree(tmp_path):
    put(tmp_path, {"secret/pids.max": "7\n", "root/proc/self/cgroup": "0::/../../../../secret\n"})
    assert look_at_limits(tmp_path / "root").cgroup_pids is None


def test_numbers_that_are_none_are_unknown(tmp_path):
    put(tmp_path, {"proc/self/limits": "Max open files a b files\n", "proc/sys/kernel/pid_max": "many"})
    assert look_at_limits(tmp_path) == LimitFacts()


# Confinement


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/selinux/enforce": "1"}, "enforcing"),
        ({"sys/fs/selinux/enforce": "0"}, "permissive"),
        ({"proc/filesystems": "nodev\tsysfs\n\text4\n"}, "disabled"),
        # In a container of a host that has it, the folder is hidden.
        ({"proc/filesystems": "nodev\tselinuxfs\n\text4\n"}, None),
        ({}, None),
    ],
)
def test_selinux(tmp_path, files, expected):
    assert look_at_security(put(tmp_path, files)).selinux == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"container_use_devices": "0 0", "container_use_xserver_devices": "1 1"}, True),
        ({"container_use_devices": "0 1"}, False),
        ({"container_use_dri_devices": "1 1"}, None),
        ({}, None),
    ],
)
def test_whether_selinux_lets_containers_use_devices(tmp_path, files, expected):
    put(tmp_path / "sys/fs/selinux/booleans", files)
    assert look_at_security(tmp_path).selinux_devices is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/module/apparmor/parameters/enabled": "Y\n"}, True),
        ({"sys/module/apparmor/parameters/enabled": "N\n"}, False),
        ({"sys/module/nvidia/version": ""}, False),
        ({}, None),
    ],
)
def test_apparmor(tmp_path, files, expected):
    assert look_at_security(put(tmp_path, files)).apparmor is expected


SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({SECURE_BOOT: b"\x06\0\0\0\x01"}, True),
        ({SECURE_BOOT: b"\x06\0\0\0\0"}, False),
        ({SECURE_BOOT: b"\x06\0"}, None),
        ({"sys/firmware/efi/fw_platform_size": "64"}, None),
        ({"sys/firmware/acpi/pm_profile": "4"}, False),
        ({}, None),
    ],
)
def test_secure_boot(tmp_path, files, expected):
    assert look_at_security(put(tmp_path, files)).secure_boot is expected


def test_the_mode_of_lockdown_is_the_one_in_brackets(tmp_path):
    put(tmp_path, {"sys/kernel/security/lockdown": "none [integrity] confidentiality\n"})
    assert look_at_security(tmp_path).lockdown == "integrity"
    assert look_at_security(tmp_path / "nothing") == SecurityFacts()


# NVIDIA's devices and modules


def device(root: Path, slot: str, way: str = "", *, vendor: str = "0x10de", **attributes: str) -> Path:
    """A PCI device at `slot` behind the bridges `way`, as /sys links to it. `driver` is the name of its driver."""
    folder = root / "sys/devices/pci0000:00" / way / slot
    folder.mkdir(parents=True)
    driver = attributes.pop("driver", None)
    put(folder, {"vendor": vendor, **attributes})
    if driver:
        home = root / "sys/bus/pci/drivers" / driver
        home.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(home)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / slot).symlink_to(folder)
    return folder


H200 = {"class": "0x030200", "device": "0x2335"}


def test_devices_modules_and_nodes_of_a_host_with_switches(tmp_path):
    for number in range(8):
        device(tmp_path, f"0000:{number + 1:02x}:00.0", driver="nvidia", **H200)
    device(tmp_path, "0000:20:00.0", **{"class": "0x068000", "device": "0x22a3"}, driver="nvidia-nvswitch")
    device(tmp_path, "0000:21:00.0", vendor="0x15b3", **{"class": "0x020700", "device": "0x1021"}, driver="mlx5_core")
    device(tmp_path, "0000:01:00.1", **{"class": "0x040300", "device": "0x22bc"}, driver="snd_hda_intel")
    put(
        tmp_path,
        {
            "proc/sys/kernel/osrelease": KERNEL,
            "proc/driver/nvidia/version": OPEN + "\nGCC version:  gcc version 12.3.0\n",
            "proc/modules": "nvidia_uvm 2154496 4 - Live 0x0\nnvidia 11583488 10 - Live 0x0\next4 1 1 - Live 0x0\n",
            "sys/module/nvidia/version": "580.95.05\n",
            "sys/module/ib_umad/initstate": "live\n",
            "sys/class/infiniband/mlx5_0/x": "",
            f"lib/modules/{KERNEL}/modules.dep": "kernel/fs/ext4.ko.zst:\nupdates/dkms/nvidia.ko.zst: x\n",
            f"var/lib/dkms/nvidia/580.95.05/{KERNEL}/x86_64/log/make.log": "",
            "var/lib/dkms/nvidia/570.86/6.8.0-50-generic/x86_64/log/make.log": "",
            "dev/nvidia0": "",
            "dev/nvidiactl": "",
            "dev/nvidia-caps/nvidia-cap1": "",
            "dev/char/195:0": "",
            "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05": "",
        },
    )
    (tmp_path / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.95.05")
    seen = look_at_nvidia_kernel(tmp_path, number_of=lambda node: (195, 0 if node.name == "nvidia0" else 255))
    assert seen == NvidiaKernelFacts(
        pci_gpus=8,
        pci_gpus_bound=8,
        gpu_drivers={"nvidia": 8},
        gpu_ids=("2335",),
        nvswitches=1,
        module="580.95.05",
        module_open=True,
        modules=("ib_umad", "nvidia", "nvidia_uvm"),
        installed="580.95.05",
        installed_path="updates/dkms/nvidia.ko.zst",
        installed_known=True,
        library="580.95.05",
        device_nodes=("nvidia0", "nvidiactl"),
        nodes_denied=(),
        dev_char_links=False,
        dxg=False,
        infiniband=("mlx5_0",),
    )
    put(tmp_path, {"dev/char/195:255": ""})
    again = look_at_nvidia_kernel(tmp_path, number_of=lambda node: (195, 0 if node.name == "nvidia0" else 255))
    assert again.dev_char_links is True


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["run/nvidia/driver/usr/lib/x86_64-linux-gnu"], "/run/nvidia/driver/usr/lib/x86_64-linux-gnu"),
        (["run/nvidia/driver/usr/lib64"], "/run/nvidia/driver/usr/lib64"),
        (["home/kubernetes/bin/nvidia/lib64"], "/home/kubernetes/bin/nvidia/lib64"),
        (["var/lib/nvidia/lib64"], "/var/lib/nvidia/lib64"),
        (["var/lib/nvidia/lib64", "usr/lib64"], None),
        (["opt/lib"], None),
    ],
)
def test_a_library_that_no_program_finds_by_itself(tmp_path, files, folder):
    put(tmp_path, {f"{where}/libnvidia-ml.so.1": "" for where in files})
    assert look_at_nvidia_kernel(tmp_path).library_folder == folder


def test_gpus_by_the_driver_that_holds_them(tmp_path):
    for number, driver in enumerate(["nouveau", "vfio-pci", "vfio-pci", None]):
        device(tmp_path, f"0000:0{number + 1}:00.0", **H200, **({"driver": driver} if driver else {}))
    seen = look_at_nvidia_kernel(tmp_path)
    assert seen.gpu_drivers == {"none": 1, "nouveau": 1, "vfio-pci": 2}
    assert (seen.pci_gpus, seen.pci_gpus_bound) == (4, 0)


def test_a_machine_that_shows_nothing_is_unknown_and_one_without_gpus_is_not(tmp_path):
    seen = look_at_nvidia_kernel(tmp_path / "nothing")
    assert (seen.pci_gpus, seen.gpu_drivers, seen.modules, seen.device_nodes) == (None, None, None, None)
    assert (seen.module, seen.module_open, seen.installed_known) == (None, None, False)
    put(tmp_path, {"sys/bus/pci/devices/.keep": "", "dev/null": ""})
    seen = look_at_nvidia_kernel(tmp_path)
    assert (seen.pci_gpus, seen.gpu_drivers, seen.device_nodes, seen.dev_char_links) == (0, {}, (), None)


def test_a_proprietary_module_tells_its_version_without_sys(tmp_path):
    seen = look_at_nvidia_kernel(put(tmp_path, {"proc/driver/nvidia/version": CLOSED + "\n"}))
    assert (seen.module, seen.module_open) == ("535.183.06", False)


def test_nodes_that_this_user_may_not_open(tmp_path):
    put(tmp_path, {"dev/nvidia0": ""})
    (tmp_path / "dev/nvidiactl").symlink_to("nowhere")  # root may open whatever is there
    assert look_at_nvidia_kernel(tmp_path).nodes_denied == ("nvidiactl",)


def elf(modinfo: bytes) -> bytes:
    """A 64-bit ELF file with the sections .shstrtab and .modinfo, and nothing else."""
    names = b"\0.shstrtab\0.modinfo\0"
    head = 64
    table = head + len(names) + len(modinfo)
    entries = b"".join(
        struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, at, length, 0, 0, 1, 0)
        for name, at, length in ((1, head, len(names)), (11, head + len(names), len(modinfo)))
    )
    start = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 2, 0)
    )
    return start + names + modinfo + entries


@pytest.mark.parametrize(
    ("files", "path", "version", "known"),
    [
        ({"modules.dep": "kernel/fs/ext4.ko:\n"}, None, None, True),
        ({}, None, None, False),
        (
            {
                "modules.dep": "kernel/nvidia-580-open/nvidia.ko: kernel/drivers/gpu/drm/drm.ko\n",
                "kernel/nvidia-580-open/nvidia.ko": elf(b"license=Dual\0srcversion=ABC\0version=580.95.05\0"),
            },
            "kernel/nvidia-580-open/nvidia.ko",
            "580.95.05",
            True,
        ),
        ({"modules.dep": "extra/nvidia.ko.xz:\n"}, "extra/nvidia.ko.xz", None, False),
        ({"modules.dep": "extra/nvidia.ko:\n", "extra/nvidia.ko": b"\x7fELF\x02\x01"}, "extra/nvidia.ko", None, False),
        ({"modules.dep": "extra/nvidia.ko:\n", "extra/nvidia.ko": elf(b"")[:-40]}, "extra/nvidia.ko", None, False),
        # Other modules of the driver are not the driver, nor is one of a similar name.
        ({"modules.dep": "extra/nvidia-uvm.ko: extra/x.ko\nextra/mynvidia.ko:\n"}, None, None, True),
    ],
)
def test_the_module_on_disk(tmp_path, files, path, version, known):
    put(tmp_path, {"proc/sys/kernel/osrelease": KERNEL})
    put(tmp_path / "lib/modules" / KERNEL, files)
    seen = look_at_nvidia_kernel(tmp_path)
    assert (seen.installed_path, seen.installed, seen.installed_known) == (path, version, known)


# IOMMU and access control


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ({"sys/kernel/iommu_groups/.keep/x": ""}, "translated"),
        ({"sys/kernel/iommu_groups/0/type": "identity\n", "sys/kernel/iommu_groups/1/type": "identity"}, "passthrough"),
        ({"sys/kernel/iommu_groups/0/type": "DMA-FQ\n", "sys/kernel/iommu_groups/1/type": "identity"}, "translated"),
        ({"sys/kernel/iommu_groups/0/x": "", "proc/cmdline": "quiet iommu=pt"}, "passthrough"),
        ({"sys/kernel/iommu_groups/0/x": "", "proc/cmdline": "quiet"}, "translated"),
        ({}, None),
    ],
)
def test_iommu_by_its_groups(tmp_path, files, mode):
    assert look_at_iommu(put(tmp_path, files)).mode == mode


def test_no_groups_means_that_no_iommu_is_on(tmp_path):
    (tmp_path / "sys/kernel/iommu_groups").mkdir(parents=True)
    assert look_at_iommu(tmp_path) == IommuFacts(mode="off")


def test_the_groups_of_the_gpus_are_those_that_count(tmp_path):
    gpu = device(tmp_path, "0000:01:00.0", **H200)
    put(gpu, {"iommu_group/type": "identity\n"})
    put(tmp_path, {"sys/kernel/iommu_groups/0/type": "DMA\n"})
    assert look_at_iommu(tmp_path).mode == "passthrough"


def config(control: int | None, *, size: int = 4096) -> bytes:
    """A configuration space with two extended capabilities, the second of them ACS where `control` is given."""
    space = bytearray(size)
    space[0:2] = b"\xde\x10"
    if size > 256:
        space[0x100:0x104] = (0x0001 | 1 << 16 | 0x150 << 20).to_bytes(4, "little")
        space[0x150:0x154] = ((0x000D if control is not None else 0x0003) | 1 << 16).to_bytes(4, "little")
        space[0x156:0x158] = (control or 0).to_bytes(2, "little")
    return bytes(space)


@pytest.mark.parametrize(
    ("spaces", "count"),
    [
        ([config(0x1D), config(0x1D)], 2),
        ([config(0x1D), config(0x00)], 1),
        ([config(0x01), config(None)], 0),  # source validation alone redirects nothing
        ([config(0x1D), config(0x00, size=64)], None),  # what a user who is not root gets to see
        ([config(None, size=256), config(0x1D)], 1),
        ([config(None), b""], None),
    ],
)
def test_bridges_that_redirect(tmp_path, spaces, count):
    way = ""
    for number, space in enumerate(spaces):
        slot = f"0000:0{number}:00.0"
        bridge = device(tmp_path, slot, way, vendor="0x8086", **{"class": "0x060400", "device": "0x1"})
        (bridge / "config").write_bytes(space)
        way += f"/{slot}" if way else slot
    device(tmp_path, "0000:10:00.0", way, **H200)
    device(tmp_path, "0000:11:00.0", way, **H200)
    assert look_at_iommu(tmp_path).acs_bridges == count


def test_a_list_of_capabilities_that_runs_in_a_circle_ends(tmp_path):
    bridge = device(tmp_path, "0000:00:01.0", vendor="0x8086", **{"class": "0x060400", "device": "0x1"})
    space = bytearray(4096)
    space[0x100:0x104] = (0x0001 | 1 << 16 | 0x100 << 20).to_bytes(4, "little")
    (bridge / "config").write_bytes(space)
    device(tmp_path, "0000:10:00.0", "0000:00:01.0", **H200)
    assert look_at_iommu(tmp_path).acs_bridges == 0


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme hypervisor lm\n"}, True),
        ({"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme lm\n"}, False),
        ({"proc/cpuinfo": "Features\t: fp", "sys/class/dmi/id/sys_vendor": "QEMU"}, True),
        ({"sys/class/dmi/id/sys_vendor": "NVIDIA", "sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark"}, False),
        ({"sys/firmware/devicetree/base/hypervisor/compatible": "linux,kvm"}, True),
        ({}, None),
    ],
)
def test_virtual_machines(tmp_path, files, virtual):
    assert look_at_iommu(put(tmp_path, files)).virtual is virtual


# Fabric manager


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


UNIT = "lib/systemd/system/nvidia-fabricmanager.service"
BOOTED = {"run/systemd/system/x": ""}


def look(root: Path, environment: dict[str, str]) -> FabricManagerFacts:
    return look_at_fabric_manager(time.monotonic() + 30, environment, root)


def test_without_systemd_the_service_is_unknown_and_without_unit_it_is_absent(tmp_path):
    called = program(tmp_path / "bin", "systemctl", f"touch {tmp_path}/called")
    assert look(tmp_path / "nothing", called) == FabricManagerFacts()
    assert look(put(tmp_path, BOOTED), called) == FabricManagerFacts(service="absent")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("says", "service"),
    [
        ("LoadState=loaded\\nActiveState=active\\n", "active"),
        ("LoadState=loaded\\nActiveState=failed\\n", "failed"),
        ("LoadState=not-found\\nActiveState=inactive\\n", "absent"),
        ("", None),
    ],
)
def test_what_systemd_says_of_the_service(tmp_path, says, service):
    environment = program(tmp_path / "bin", "systemctl", f"printf '{says}'")
    program(tmp_path / "bin", "nv-fabricmanager", "echo; echo 'Fabric Manager version is : 580.95.05'")
    seen = look(put(tmp_path, {**BOOTED, UNIT: ""}), environment)
    assert seen == FabricManagerFacts("580.95.05", service, "nv-fabricmanager")


def test_a_unit_that_runs_is_seen_without_systemctl(tmp_path):
    put(tmp_path, {**BOOTED, UNIT: "", "run/systemd/units/invocation:nvidia-fabricmanager.service": ""})
    assert look(tmp_path, {"PATH": str(tmp_path)}) == FabricManagerFacts(service="active")


def test_a_fabric_manager_that_does_not_tell_its_version_has_none(tmp_path):
    environment = program(tmp_path / "bin", "nv-fabricmanager", "echo 'error while loading shared libraries'; exit 127")
    assert look(put(tmp_path, BOOTED), environment) == FabricManagerFacts(service="absent")


def test_no_time_is_taken_when_none_is_left(tmp_path):
    environment = program(tmp_path / "bin", "systemctl", "sleep 1000")
    put(tmp_path, {**BOOTED, UNIT: ""})
    assert look_at_fabric_manager(time.monotonic(), environment, tmp_path).service is None

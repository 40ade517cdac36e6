"""The driver: why none answers, its version and branch, its kernel module, and the CUDA that it supports."""

from dataclasses import replace

import pytest

from nimctl.core.errors import CATALOGUE
from nimctl.core.facts import NvidiaKernelFacts
from nimctl.doctor.driver_branches import BRANCHES, has_ended, is_blackwell
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, gpu, gpus, host, inventory, judge, verdicts, without_gpus
from tests.unit.doctor.system_hosts import H200_UBUNTU, HOSTS, KERNEL, SPARK, WSL

CPU = Needs(recipe=DEMO, gpus="none")

# A host whose driver is installed, and whose module nobody loaded.
IDLE = replace(
    KERNEL, pci_gpus_bound=0, gpu_drivers={"none": 8}, module=None, module_open=None, modules=(), device_nodes=()
)


def silent(state: str, kernel: NvidiaKernelFacts, **parts):
    """The finding for a host whose NVML answers `state`."""
    facts = host(H200_UBUNTU, gpus=without_gpus(state), nvidia_kernel=kernel, **parts)
    (finding,) = judge("driver", facts)
    assert finding.verdict == "fail"
    assert finding.id in CATALOGUE
    assert len(finding.title) <= 80
    return finding


UNSIGNED = {"security": {"secure_boot": False, "lockdown": "none"}}


@pytest.mark.parametrize(
    ("state", "kernel", "parts", "error_id", "fix"),
    [
        ("no-library", replace(IDLE, installed=None, installed_path=None), {}, "driver-missing", "installation-guide"),
        ("no-library", NvidiaKernelFacts(), {}, "driver-missing", "installation-guide"),
        ("no-library", replace(IDLE, pci_gpus=0, gpu_drivers={}), {}, "gpu-missing", "demo"),
        ("no-library", KERNEL, {}, "driver-library-missing", "ldconfig"),
        ("no-library", KERNEL, {"system": {"container": "docker"}}, "driver-library-missing", "--gpus all"),
        ("driver-not-loaded", replace(IDLE, pci_gpus=0, gpu_drivers={}), {}, "gpu-missing", "demo"),
        ("driver-not-loaded", IDLE, UNSIGNED, "driver-not-loaded", "sudo modprobe nvidia"),
        ("driver-not-loaded", NvidiaKernelFacts(), UNSIGNED, "driver-not-loaded", "sudo modprobe nvidia"),
        ("driver-not-loaded", IDLE, {}, "driver-not-signed", "mokutil"),
        ("driver-not-loaded", replace(IDLE, gpu_drivers={"nouveau": 8}), {}, "nouveau-loaded", "update-initramfs"),
        ("driver-not-loaded", replace(IDLE, gpu_drivers=None, modules=("nouveau",)), {}, "nouveau-loaded", "blacklist"),
        ("driver-not-loaded", replace(IDLE, gpu_drivers={"vfio-pci": 8}), {}, "gpu-passthrough", "virtual machine"),
        ("no-library", replace(IDLE, gpu_drivers={"vfio-pci": 8}), {}, "gpu-passthrough", "virtual machine"),
        ("driver-not-loaded", replace(IDLE, installed=None, installed_path=None), {}, "driver-not-built", "dkms"),
        ("driver-not-loaded", replace(KERNEL, device_nodes=()), {}, "driver-nodes-missing", "nvidia-modprobe"),
        ("driver-not-loaded", replace(KERNEL, nodes_denied=("nvidiactl",)), {}, "driver-no-permission", "usermod"),
        ("driver-not-loaded", KERNEL, {}, "driver-not-loaded", "dmesg"),
        ("mismatch", KERNEL, {}, "driver-mismatch", "; sudo modprobe nvidia`"),
        ("no-permission", KERNEL, {}, "driver-no-permission", "ls -l /dev/nvidia"),
        ("no-permission", KERNEL, {"security": {"selinux": "enforcing"}}, "driver-no-permission", "ausearch"),
        ("failed", KERNEL, {}, "driver-broken", "sudo dmesg"),
        ("hangs", NvidiaKernelFacts(), {}, "driver-hangs", "nvidia-smi -pm 1"),
        ("failed", replace(KERNEL, module_open=False, gpu_ids=("2901",)), {}, "driver-module-wrong", "nvidia-open"),
    ],
)
def test_a_driver_that_does_not_answer_has_one_cause_and_one_fix(state, kernel, parts, error_id, fix):
    finding = silent(state, kernel, **parts)
    assert finding.id == error_id
    assert fix in finding.fix
    assert finding.evidence[0] == "NVML says no"


@pytest.mark.parametrize(
    ("kernel", "verdict"),
    [
        (KERNEL, "unknown"),
        (replace(KERNEL, module=None), "unknown"),  # in the list of modules all the same
        (replace(KERNEL, module=None, modules=None), "fail"),
        (replace(KERNEL, device_nodes=("nvidia-uvm", "nvidiactl")), "fail"),
        (replace(KERNEL, device_nodes=("nvidia0", "nvidia-uvm")), "fail"),
        (replace(KERNEL, device_nodes=None), "fail"),
        (IDLE, "fail"),
    ],
)
def test_a_driver_that_may_be_no_more_than_late_is_no_proof_of_a_broken_host(kernel, verdict):
    (finding,) = judge("driver", host(H200_UBUNTU, gpus=without_gpus("hangs"), nvidia_kernel=kernel))
    assert (finding.verdict, finding.id) == (verdict, "driver-hangs")
    assert finding.severity == ("warning" if verdict == "unknown" else "error")
    assert "nvidia-smi -pm 1" in finding.fix and finding.evidence == ("NVML says no",)


def test_a_reload_ends_with_a_driver_also_where_a_module_of_it_was_not_loaded():
    fix = silent("mismatch", KERNEL).fix
    assert "rmmod" not in fix and "&&" not in fix
    for holder in ("nvidia_peermem", "nvidia-persistenced", "nvidia-fabricmanager"):
        assert holder in fix


def test_no_command_reboots_a_host_by_itself():
    fix = silent("driver-not-loaded", replace(IDLE, gpu_drivers={"nouveau": 8})).fix
    assert "sudo reboot" not in fix and fix.endswith("then reboot.")


def test_a_driver_that_lies_elsewhere_is_not_to_be_installed_again():
    finding = silent("no-library", replace(KERNEL, library=None, library_folder="/run/nvidia/driver/usr/lib64"))
    assert finding.id == "driver-library-missing"
    assert "LD_LIBRARY_PATH=/run/nvidia/driver/usr/lib64" in finding.fix
    assert "apt" not in finding.fix


def test_a_gpu_in_the_processor_is_not_looked_for_on_the_pci_bus():
    board = {"system": {"arch": "aarch64", "product": "NVIDIA Jetson AGX Thor Developer Kit"}}
    kernel = replace(IDLE, pci_gpus=0, gpu_drivers={}, installed=None, installed_path=None)
    assert silent("no-library", kernel, **board).id == "driver-missing"


def test_some_gpus_in_virtual_machines_do_not_explain_a_missing_module():
    kernel = replace(IDLE, gpu_drivers={"none": 4, "vfio-pci": 4})
    assert silent("driver-not-loaded", kernel, **UNSIGNED).id == "driver-not-loaded"


def test_locked_down_kernels_are_named_where_secure_boot_is_not_told():
    security = {"security": {"secure_boot": None, "lockdown": "confidentiality"}}
    finding = silent("driver-not-loaded", IDLE, **security)
    assert (finding.id, "confidentiality" in finding.title) == ("driver-not-signed", True)


def test_a_mismatch_names_both_versions_and_whether_a_reboot_helps():
    finding = silent("mismatch", replace(KERNEL, module="570.86.15"))
    assert finding.title == "driver library 580.159.03, kernel module 570.86.15"
    assert "Reboot" in finding.fix
    finding = silent("mismatch", replace(KERNEL, module="570.86.15", installed="570.86.15"))
    assert "570.86.15" in finding.cause
    assert "one source" in finding.fix


def test_the_kernel_without_module_is_named():
    finding = silent("driver-not-loaded", replace(IDLE, installed=None, installed_path=None))
    assert "6.8.0-90-generic" in finding.title
    assert "dkms autoinstall -k 6.8.0-90-generic" in finding.fix


def test_on_other_distributions_the_initial_ramdisk_is_made_otherwise():
    finding = silent("driver-not-loaded", replace(IDLE, gpu_drivers={"nouveau": 8}), system={"os_id": "rocky"})
    assert "dracut" in finding.fix


@pytest.mark.parametrize(("dxg", "fix"), [(False, "wsl --update"), (True, "Windows"), (None, "Windows")])
def test_under_wsl_the_driver_belongs_into_windows(dxg, fix):
    facts = host(WSL, gpus=without_gpus(), nvidia_kernel={"dxg": dxg})
    (finding,) = judge("driver", facts)
    assert finding.id == "driver-missing"
    assert fix in finding.fix


def test_a_linux_driver_inside_wsl_has_to_go():
    facts = host(WSL, gpus=without_gpus("driver-not-loaded"), nvidia_kernel={"library": "535.288.01"})
    (finding,) = judge("driver", facts)
    assert finding.id == "driver-missing" and "535.288.01" in finding.title
    assert "apt-get purge" in finding.fix


def test_gpus_that_the_wrong_module_does_not_drive_are_one_fault():
    kernel = {"pci_gpus": 8, "gpu_ids": ("2901",), "module_open": False}
    facts = host(gpus=inventory(), nvidia_kernel=kernel)
    assert verdicts(judge("driver-module", facts)) == [("fail", "driver-module-wrong")]
    assert verdicts(judge("gpus", facts)) == [("skip", "gpus")]


def test_the_rest_waits_for_the_driver():
    facts = host(gpus=without_gpus())
    for check in ("driver-version", "driver-module", "cuda", "gpus", "gpu-choice", "gpu-memory", "gpu-fit"):
        assert verdicts(judge(check, facts)) == [("skip", check)]


def test_on_the_cpu_no_driver_is_asked_for():
    for check in ("driver", "driver-version", "driver-module", "cuda"):
        (finding,) = judge(check, host(gpus=without_gpus()), CPU)
        assert (finding.verdict, finding.cause) == ("skip", "no GPU was asked for")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("580.95.05", ("pass", "driver-version")),
        ("580", ("pass", "driver-version")),
        ("595.71.05", ("pass", "driver-version")),
        ("700.12", ("pass", "driver-version")),
        ("579.99", ("fail", "driver-too-old")),
        ("535.309.01", ("fail", "driver-too-old")),
        (None, ("unknown", "driver-version")),
        ("r580-custom", ("unknown", "driver-version")),
    ],
)
def test_driver_version(version, expected):
    assert verdicts(judge("driver-version", host(H200_UBUNTU, gpus={"driver": version}))) == [expected]


def test_the_branch_is_named_with_its_end():
    (finding,) = judge("driver-version", H200_UBUNTU)
    assert finding.title == "driver 580.159.03, R580: long-term support branch, until 2028-06"


@pytest.mark.parametrize(
    ("version", "day", "verdict"),
    [
        ("580.95.05", "2028-06-30T23:59:59+00:00", "pass"),
        ("580.95.05", "2028-07-01T00:00:00+00:00", "warn"),
        ("610.43.02", "2026-09-01T00:00:00+00:00", "warn"),
        ("590.48.01", "2026-01-01T00:00:00+00:00", "pass"),
        ("590.48.01", "2026-10-01T00:00:00+00:00", "warn"),
        # Windows numbers on within a branch.
        ("591.44", "2030-01-01T00:00:00+00:00", "pass"),
    ],
)
def test_a_branch_is_fixed_until_its_end(version, day, verdict):
    facts = replace(host(H200_UBUNTU, gpus={"driver": version}), taken_at=day)
    (finding,) = judge("driver-version", facts)
    assert finding.verdict == verdict
    if verdict == "warn":
        assert (finding.id, finding.severity) == ("driver-branch-ended", "info")


def test_windows_versions_are_no_branches_of_linux():
    (finding,) = judge("driver-version", WSL)
    assert (finding.verdict, finding.title) == ("pass", "driver 581.57 (580 or later is needed)")
    (finding,) = judge("driver-version", host(WSL, gpus={"driver": "576.02"}))
    assert "Windows" in finding.fix


def test_branches_end_after_they_began():
    assert all(len(b.until) == 7 for b in BRANCHES.values() if b.until)
    assert not has_ended(BRANCHES[580], "2026-11")
    assert has_ended(BRANCHES[535], "2026-11")


@pytest.mark.parametrize(
    ("device", "expected"),
    [("2901", True), ("2b85", True), ("2e12", True), ("2335", False), ("2f80", False), ("26b9", False), ("x", False)],
)
def test_blackwell_by_its_device_id(device, expected):
    assert is_blackwell(device) is expected


BLACKWELL = tuple(gpu(i, name="NVIDIA B200", architecture="blackwell") for i in range(8))


@pytest.mark.parametrize(
    ("cards", "kernel", "expected"),
    [
        (gpus(8), {}, ("pass", "driver-module")),
        (gpus(8), {"module_open": False}, ("pass", "driver-module")),
        (BLACKWELL, {"gpu_ids": ("2901",)}, ("pass", "driver-module")),
        # Some drivers start them all the same: https://github.com/Start9Labs/start-technologies/pull/3693
        (BLACKWELL, {"gpu_ids": ("2901",), "module_open": False}, ("warn", "driver-module-wrong")),
        (gpus(1, name="NVIDIA GH200 480GB"), {"module_open": False}, ("warn", "driver-module-wrong")),
        ((), {"gpu_ids": ("2901",), "module_open": False}, ("fail", "driver-module-wrong")),
        (gpus(4), {"gpu_ids": ("2335", "2901"), "module_open": False}, ("warn", "driver-module-wrong")),
        ((), {"gpu_ids": ("2335",), "module_open": False}, ("pass", "driver-module")),
        (gpus(8), {"module_open": None}, ("unknown", "driver-module")),
    ],
)
def test_the_kernel_module_is_of_the_kind_that_the_gpus_need(cards, kernel, expected):
    facts = host(H200_UBUNTU, gpus=inventory(*cards), nvidia_kernel=kernel)
    assert verdicts(judge("driver-module", facts)) == [expected]


def test_windows_module_is_not_judged():
    assert verdicts(judge("driver-module", WSL)) == [("skip", "driver-module")]
    assert verdicts(judge("driver-module", SPARK)) == [("pass", "driver-module")]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("12.9", ("pass", "cuda")),
        ("13.0", ("pass", "cuda")),
        ("12.10", ("pass", "cuda")),
        ("12.8", ("fail", "cuda-too-old")),
        (None, ("unknown", "cuda")),
    ],
)
def test_cuda_version(version, expected):
    assert verdicts(judge("cuda", host(gpus={"cuda": version}))) == [expected]


def test_a_driver_that_is_too_old_fails_once():
    facts = host(gpus={"cuda": "12.4", "driver": "550.163.01"})
    assert verdicts(judge("driver-version", facts)) == [("fail", "driver-too-old")]
    assert verdicts(judge("cuda", facts)) == [("skip", "cuda")]


@pytest.mark.parametrize("name", HOSTS)
def test_hosts_that_are_well_are_left_in_peace(name):
    for check in ("driver", "driver-version", "driver-module", "cuda"):
        (finding,) = judge(check, HOSTS[name], Needs(recipe=DEMO))
        assert finding.verdict in ("pass", "skip", "unknown"), finding
        assert len(finding.title) <= 80

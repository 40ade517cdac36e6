"""Why no driver answers: one cause and one fix, from what the kernel, the PCI bus and the disk show."""

import re
import shlex
from dataclasses import replace

from nimctl.core.facts import HostFacts
from nimctl.core.gpus import HANGS
from nimctl.doctor.driver_branches import is_blackwell
from nimctl.doctor.model import Finding, failed

GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
INSTALL = f"Install driver 580 or later: {GUIDE}"
INSTALL_WSL = "Install the NVIDIA driver in Windows, and none inside WSL: https://docs.nvidia.com/cuda/wsl-user-guide/"
INSTALL_OPEN = f"Install the open flavour of the driver (such as nvidia-open) and reboot: {GUIDE}kernel-modules.html"
# modprobe -r passes over modules that are not loaded, and goes on after one that is in use.
_RELOAD = (
    "Reboot; or stop what holds the GPUs (programs, nvidia-persistenced, nvidia-fabricmanager), then `sudo modprobe "
    "-r nvidia_peermem nvidia_uvm nvidia_drm nvidia_modeset nvidia; sudo modprobe nvidia`, and start them again."
)
_PASSTHROUGH = "vfio-pci"
_OTHER_DRIVERS = ("nouveau", "nova_core", "NovaCore")
_GPU_NODE = re.compile(r"nvidia\d+")


def why(facts: HostFacts) -> Finding:
    """The finding for an inventory whose state is not "ok"."""
    state = facts.gpus.state
    told = {"mismatch": _mismatch, "no-permission": _no_permission, "hangs": _hangs, "failed": _broken}.get(state)
    if told is not None:
        return told(facts)
    if facts.system.wsl:
        return _wsl(facts)
    if _is_loaded(facts):
        return _library_missing(facts) if state == "no-library" else _no_way_in(facts)
    return _not_usable(facts)


def _say(facts: HostFacts, error_id: str, title: str, cause: str, fix: str, *evidence: str) -> Finding:
    detail = (facts.gpus.detail,) if facts.gpus.detail else ()
    return failed("driver", error_id, title, cause=cause, fix=fix, evidence=(*detail, *evidence))


def _is_loaded(facts: HostFacts) -> bool:
    return facts.nvidia_kernel.module is not None or "nvidia" in (facts.nvidia_kernel.modules or ())


def _not_usable(facts: HostFacts) -> Finding:
    """The kernel module is not loaded: who holds the GPUs instead, or what is missing."""
    kernel = facts.nvidia_kernel
    holders = kernel.gpu_drivers or {}
    if kernel.pci_gpus == 0 and not _is_board(facts):
        cause = "the PCI bus shows no NVIDIA GPU: the machine has none, or it was not given to this virtual machine"
        fix = "Use a host with a GPU; the demo model also runs without: `nimctl run demo --gpus none`."
        return _say(facts, "gpu-missing", "this machine has no NVIDIA GPU", cause, fix)
    if kernel.pci_gpus and holders.get(_PASSTHROUGH) == kernel.pci_gpus:
        cause = "vfio-pci holds all GPUs, to give them to virtual machines"
        fix = (
            "Run in the virtual machine that has them, or take their ids out of vfio-pci's options in /etc/modprobe.d "
            "and the kernel command line, and reboot."
        )
        return _say(facts, "gpu-passthrough", "the GPUs are set aside for virtual machines", cause, fix)
    if facts.gpus.state == "no-library" and kernel.installed_path is None:
        cause = "libnvidia-ml.so.1, which comes with the driver, is not installed"
        return _say(facts, "driver-missing", "no NVIDIA driver", cause, INSTALL, *_container(facts))
    if any(name in holders for name in _OTHER_DRIVERS) or (not holders and "nouveau" in (kernel.modules or ())):
        cause = "the kernel's own driver nouveau holds the GPUs, and CUDA cannot use it"
        fix = f"Run {without_nouveau(facts)}, then reboot."
        return _say(facts, "nouveau-loaded", "nouveau is loaded in the place of NVIDIA's driver", cause, fix)
    return _not_loaded(facts)


def _not_loaded(facts: HostFacts) -> Finding:
    kernel, security = facts.nvidia_kernel, facts.security
    running = facts.system.kernel or "the running kernel"
    if kernel.installed_known and kernel.installed_path is None:
        cause = f"there is no nvidia module for kernel {running}: it was not built after the kernel was updated"
        fix = (
            f"Install the kernel's headers and build it: `sudo dkms autoinstall -k {running}`, then `sudo modprobe "
            "nvidia`; where the driver came without DKMS, install it again."
        )
        return _say(facts, "driver-not-built", f"no NVIDIA module for kernel {running}", cause, fix, *_dkms_log(facts))
    if security.secure_boot or security.lockdown in ("integrity", "confidentiality"):
        what = "Secure Boot is on" if security.secure_boot else f"the kernel is locked down ({security.lockdown})"
        cause = "the kernel loads modules only that are signed with a key it knows, and this one may not be"
        fix = (
            'Where `sudo modprobe nvidia` says "Key was rejected", enrol the key that signs it with `sudo mokutil '
            "--import` (Ubuntu keeps it in /var/lib/shim-signed/mok, DKMS in /var/lib/dkms) and reboot, or install the "
            "distribution's signed modules."
        )
        return _say(facts, "driver-not-signed", f"the NVIDIA module is not loaded, and {what}", cause, fix)
    cause = "the driver is installed, and its kernel module does not run"
    fix = (
        "Load it with `sudo modprobe nvidia`; when that fails, `sudo dmesg | grep -iE 'nvidia|nouveau|lockdown'` says "
        "why."
    )
    return _say(facts, "driver-not-loaded", "the NVIDIA kernel module is not loaded", cause, fix)


def _library_missing(facts: HostFacts) -> Finding:
    version = facts.nvidia_kernel.module or "of unknown version"
    title = f"kernel module {version} is loaded, the driver's library missing"
    if evidence := _container(facts):
        cause = "this container was not given the driver's libraries"
        fix = "Run nimctl on the host, or start this container with `--gpus all`."
        return _say(facts, "driver-library-missing", title, cause, fix, *evidence)
    if folder := facts.nvidia_kernel.library_folder:
        cause = f"they lie in {folder}, where another system keeps the driver (a driver container, an image of a cloud)"
        fix = f"Start nimctl with `LD_LIBRARY_PATH={shlex.quote(folder)}` before it; a second driver would conflict."
        return _say(facts, "driver-library-missing", title, cause, fix)
    cause = "libnvidia-ml.so.1 is not where programs look for it: only a part of the driver is installed"
    fix = (
        "Install the driver's libraries of that version (`apt list --installed 'libnvidia-compute*'`, `rpm -qa "
        "'nvidia-driver*'`), then run `sudo ldconfig`."
    )
    return _say(facts, "driver-library-missing", title, cause, fix)


def _no_way_in(facts: HostFacts) -> Finding:
    """The module is loaded, and the library does not reach it."""
    nodes = facts.nvidia_kernel.device_nodes
    title = "the NVIDIA kernel module is loaded, but does not answer"
    if nodes is not None and "nvidiactl" not in nodes:
        if evidence := _container(facts):
            fix = "Run nimctl on the host, or start this container with `--gpus all`."
            cause = "this container was not given the GPUs' device nodes"
            return _say(facts, "driver-nodes-missing", title, cause, fix, *evidence)
        cause = "/dev/nvidiactl does not exist: nothing made the device nodes"
        fix = "Make them with `sudo nvidia-modprobe -c 0 -u`, and at every start with `nvidia-persistenced`."
        return _say(facts, "driver-nodes-missing", title, cause, fix)
    if "nvidiactl" in (facts.nvidia_kernel.nodes_denied or ()):
        return _no_permission(facts)
    cause = "its device nodes are there, and opening them fails"
    fix = "`sudo dmesg | grep -i NVRM` says why; reload the module or reboot."
    return _say(facts, "driver-not-loaded", title, cause, fix)


def _mismatch(facts: HostFacts) -> Finding:
    kernel = facts.nvidia_kernel
    title = "driver library and kernel module differ in version"
    if kernel.module and kernel.library:
        title = f"driver library {kernel.library}, kernel module {kernel.module}"
    if kernel.installed and kernel.library and kernel.installed != kernel.library:
        cause = f"the module on disk is {kernel.installed}, so that a reboot alone does not make them equal"
        fix = f"Install module and libraries from one source, in one version, then reboot: {GUIDE}"
        return _say(facts, "driver-mismatch", title, cause, fix)
    cause = "the driver was updated while the old kernel module stayed loaded"
    return _say(facts, "driver-mismatch", title, cause, _RELOAD)


def _no_permission(facts: HostFacts) -> Finding:
    denied = facts.nvidia_kernel.nodes_denied or ()
    cause = f"it may not open {', '.join('/dev/' + n for n in denied[:4])}" if denied else "NVML refused access"
    if facts.security.selinux == "enforcing" and not denied:
        cause = "NVML refused access to /dev/nvidiactl, whose mode allows it: SELinux may not"
        fix = "`sudo ausearch -m avc -ts recent` shows what SELinux refused."
        return _say(facts, "driver-no-permission", "this user may not use the NVIDIA driver", cause, fix)
    fix = (
        "Look with `ls -l /dev/nvidia*`, and add your user to the group that owns them (`sudo usermod -aG GROUP "
        "$USER`, then log in again)."
    )
    return _say(facts, "driver-no-permission", "this user may not use the NVIDIA driver", cause, fix)


def _hangs(facts: HostFacts) -> Finding:
    # https://docs.nvidia.com/deploy/driver-persistence/
    cause = "it hangs, or has to start every GPU because persistence mode is off, which takes seconds for each"
    finding = _say(facts, "driver-hangs", "the NVIDIA driver does not answer in time", cause, HANGS)
    # Late and dead look alike from here; where kernel and device nodes are as they should be, nothing proves the worse.
    return replace(finding, verdict="unknown", severity="warning") if _is_set_up(facts) else finding


def _is_set_up(facts: HostFacts) -> bool:
    nodes = facts.nvidia_kernel.device_nodes or ()
    return _is_loaded(facts) and "nvidiactl" in nodes and any(_GPU_NODE.fullmatch(node) for node in nodes)


def _broken(facts: HostFacts) -> Finding:
    kernel = facts.nvidia_kernel
    if kernel.module_open is False and any(is_blackwell(device) for device in kernel.gpu_ids or ()):
        cause = "Blackwell GPUs work with the open kernel modules only, and the proprietary ones are loaded"
        return _say(facts, "driver-module-wrong", "the kernel module does not support these GPUs", cause, INSTALL_OPEN)
    cause = "its library found it and could not start: a GPU that is lost, or interrupts that do not arrive"
    fix = "Look for Xid errors with `sudo dmesg | grep -i NVRM`, then reboot or reset the GPU."
    return _say(facts, "driver-broken", "the NVIDIA driver answers with an error", cause, fix)


def _wsl(facts: HostFacts) -> Finding:
    title = "no NVIDIA driver reaches into WSL"
    if facts.nvidia_kernel.dxg is False:
        cause = "/dev/dxg does not exist: this is WSL 1, or its kernel is too old"
        fix = "In Windows: `wsl --update`, and `wsl --set-version DISTRIBUTION 2` where `wsl -l -v` says 1."
        return _say(facts, "driver-missing", title, cause, fix)
    if inside := facts.nvidia_kernel.library:
        title = f"a Linux driver {inside} inside WSL hides that of Windows"
        cause = "programs find its library before the one in /usr/lib/wsl/lib, and WSL has no kernel module for it"
        fix = (
            "Remove it inside WSL (`sudo apt-get purge '^libnvidia-compute-.*' '^nvidia-driver-.*' "
            "'^nvidia-utils-.*'`), then run `wsl --shutdown` in Windows: https://docs.nvidia.com/cuda/wsl-user-guide/"
        )
        return _say(facts, "driver-missing", title, cause, fix)
    cause = "libnvidia-ml.so.1, which Windows' driver brings to /usr/lib/wsl/lib, is not there or does not answer"
    return _say(facts, "driver-missing", title, cause, INSTALL_WSL)


def _is_board(facts: HostFacts) -> bool:
    """Whether the GPU may be part of the processor and not on the PCI bus, as on NVIDIA's Jetson boards."""
    return facts.system.arch == "aarch64" and "jetson" in (facts.system.product or "").lower()


def _container(facts: HostFacts) -> tuple[str, ...]:
    inside = facts.system.container
    return (f"nimctl runs inside a container ({inside})",) if inside not in (None, "none") else ()


def without_nouveau(facts: HostFacts) -> str:
    """The command that keeps nouveau away from the next start on."""
    is_debian = facts.system.os_id in (None, "ubuntu", "debian")
    rebuild = "sudo update-initramfs -u" if is_debian else "sudo dracut --force"
    lines = "blacklist nouveau\\noptions nouveau modeset=0\\n"
    return f"`printf '{lines}' | sudo tee /etc/modprobe.d/blacklist-nouveau.conf && {rebuild}`"


def _dkms_log(facts: HostFacts) -> tuple[str, ...]:
    library = facts.nvidia_kernel.library
    return (f"the driver's libraries are {library}",) if library else ()

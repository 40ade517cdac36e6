"""The NVIDIA driver and the CUDA version that it supports."""

from nimctl.core.facts import HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown
from nimctl.doctor.versions import at_least

_INSTALL = "Install driver 580 or later: https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
_INSTALL_WSL = "Install the NVIDIA driver in Windows, and none inside WSL: https://docs.nvidia.com/cuda/wsl-user-guide/"

# What each state of the inventory that is not "ok" means: error id, title, cause, fix.
_STATES = {
    "no-library": (
        "driver-missing",
        "no NVIDIA driver",
        "libnvidia-ml.so.1, which comes with the driver, is not installed",
        _INSTALL,
    ),
    "driver-not-loaded": (
        "driver-missing",
        "the NVIDIA driver is installed but not loaded",
        "the kernel module does not answer: it was not built for this kernel, nouveau holds the GPUs, or Secure Boot "
        "refused an unsigned module",
        "Load it with `sudo modprobe nvidia`; when that fails, `sudo dmesg | grep -iE 'nvidia|nouveau|lockdown'` "
        "says why.",
    ),
    "mismatch": (
        "driver-mismatch",
        "driver library and kernel module differ in version",
        "the driver was updated while the old kernel module stayed loaded",
        "Reboot, or stop what uses the GPUs and reload the module: `sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset "
        "nvidia && sudo modprobe nvidia`.",
    ),
    "no-permission": (
        "driver-missing",
        "this user may not use the NVIDIA driver",
        "NVML refused access to /dev/nvidiactl",
        "Make the device files readable (`ls -l /dev/nvidia*`), or add your user to the group that owns them.",
    ),
    "failed": (
        "driver-missing",
        "the NVIDIA driver does not work",
        "NVML answered with an error, or did not answer at all",
        "Look for Xid errors with `sudo dmesg | grep -i NVRM`, then reboot or reset the GPU.",
    ),
}


def judge_driver(facts: HostFacts, needs: Needs) -> list[Finding]:
    """A driver answers, and is new enough."""
    title = "NVIDIA driver"
    if reason := no_gpu_wanted(needs):
        return [skipped("driver", title, reason)]
    if facts.gpus.state != "ok":
        error_id, what, cause, fix = _STATES[facts.gpus.state]
        if facts.system.wsl and facts.gpus.state == "no-library":
            fix = _INSTALL_WSL
        evidence = (facts.gpus.detail,) if facts.gpus.detail else ()
        return [failed("driver", error_id, what, cause=cause, fix=fix, evidence=evidence)]
    version = facts.gpus.driver
    enough = at_least(version, minimums.DRIVER)
    if enough is None:
        return [unknown("driver", f"driver version {version or 'not told'}", cause="its number cannot be read")]
    needed = f"driver {version} ({minimums.DRIVER} or later is needed)"
    if enough:
        return [passed("driver", needed)]
    cause = f"CUDA {minimums.CUDA}, which the images are built with, needs driver {minimums.DRIVER}"
    return [failed("driver", "driver-too-old", needed, cause=cause, fix=_INSTALL_WSL if facts.system.wsl else _INSTALL)]


def judge_cuda(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The driver supports the CUDA version of the images."""
    title = "CUDA version of the driver"
    if reason := no_gpu_wanted(needs) or _no_driver(facts):
        return [skipped("cuda", title, reason)]
    enough = at_least(facts.gpus.cuda, minimums.CUDA)
    if enough is None:
        return [unknown("cuda", f"CUDA version {facts.gpus.cuda or 'not told'}", cause="its number cannot be read")]
    needed = f"CUDA {facts.gpus.cuda} ({minimums.CUDA} or later is needed)"
    if enough:
        return [passed("cuda", needed)]
    return [
        failed(
            "cuda", "cuda-too-old", needed, cause="CUDA in a container is bounded by the host's driver", fix=_INSTALL
        )
    ]


def _no_driver(facts: HostFacts) -> str:
    return "" if facts.gpus.state == "ok" else "no driver answers"


CHECKS = (
    Check("driver", "gpu", f"the NVIDIA driver answers and is {minimums.DRIVER} or later", judge_driver),
    Check("cuda", "gpu", f"the driver supports CUDA {minimums.CUDA} or later", judge_cuda),
)

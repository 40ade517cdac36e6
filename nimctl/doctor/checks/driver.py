"""The NVIDIA driver: whether it answers, its version and branch, its kernel module, and the CUDA that it supports."""

from nimctl.core.facts import HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.driver_silent import INSTALL, INSTALL_OPEN, INSTALL_WSL, why
from nimctl.doctor.checks.scope import no_gpu_wanted
from nimctl.doctor.driver_branches import BRANCHES, NEEDS_OPEN, SOURCE, has_ended, is_blackwell
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least, numbers


def judge_driver(facts: HostFacts, needs: Needs) -> list[Finding]:
    """A driver answers. When none does, kernel, PCI bus and disk tell why: nouveau or a virtual machine holds the GPUs,
    the module was not built, not signed or not loaded, its library or device nodes are missing, or they differ in
    version. https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/
    """
    if reason := no_gpu_wanted(needs):
        return [skipped("driver", "NVIDIA driver", reason)]
    if facts.gpus.state != "ok":
        return [why(facts)]
    where = " (Windows')" if facts.system.wsl else ""
    return [passed("driver", f"driver {facts.gpus.driver or 'of unknown version'} answers{where}")]


def judge_version(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The driver is 580 or later, which the images' pages ask for, also where NVIDIA's forward-compatibility package
    would let an older one start; and its branch still gets fixes.
    https://docs.nvidia.com/datacenter/tesla/drivers/supported-drivers-and-cuda-toolkit-versions.html
    """
    title = "version of the driver"
    if reason := no_gpu_wanted(needs) or _no_driver(facts):
        return [skipped("driver-version", title, reason)]
    version = facts.gpus.driver
    enough = at_least(version, minimums.DRIVER)
    if enough is None:
        return [unknown("driver-version", f"driver version {version or 'not told'}", cause="it cannot be read")]
    if not enough:
        cause = f"CUDA {minimums.CUDA}, which the images are built with, needs driver {minimums.DRIVER}"
        fix = INSTALL_WSL if facts.system.wsl else INSTALL
        title = f"driver {version} ({minimums.DRIVER} or later is needed)"
        return [failed("driver-version", "driver-too-old", title, cause=cause, fix=fix)]
    number = (numbers(version) or (0,))[0]
    branch = BRANCHES.get(number)
    if facts.system.wsl or branch is None:  # Windows counts its branches on: 581 belongs to R580
        return [passed("driver-version", f"driver {version} ({minimums.DRIVER} or later is needed)")]
    until = f"until {branch.until}" if branch.until else "no longer listed"
    named = f"driver {version}, R{number}: {branch.kind} branch, {until}"
    if not has_ended(branch, facts.taken_at[:7]):
        return [passed("driver-version", named)]
    cause = f"NVIDIA no longer fixes branch R{number}, not even what attackers can use"
    fix = f"Move to a branch that is supported: {SOURCE}"
    return [warned("driver-version", "driver-branch-ended", named, cause=cause, fix=fix, severity="info")]


def judge_module(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The kernel module is of the kind that the GPUs need: Blackwell and Grace Hopper work with the open modules only,
    GPUs older than Turing with the proprietary ones only, others with either.
    https://developer.nvidia.com/blog/nvidia-transitions-fully-towards-open-source-gpu-kernel-modules/
    """
    title, kernel = "kernel module of the driver", facts.nvidia_kernel
    if reason := no_gpu_wanted(needs) or _no_driver(facts):
        return [skipped("driver-module", title, reason)]
    if facts.system.wsl:
        return [skipped("driver-module", title, "the driver is in Windows")]
    if kernel.module_open is None:
        return [unknown("driver-module", title, cause="/proc/driver/nvidia/version could not be read")]
    kind = "open" if kernel.module_open else "proprietary"
    answering = [g for g in facts.gpus.gpus if g.error is None]
    picky = [g for g in answering if g.architecture in NEEDS_OPEN or "GH200" in (g.name or "")]
    hidden = any(is_blackwell(device) for device in kernel.gpu_ids or ()) and len(answering) < (kernel.pci_gpus or 0)
    if kernel.module_open or not (picky or hidden):
        return [passed("driver-module", f"{kind} kernel module {kernel.module or ''}".rstrip())]
    cause = "Blackwell and Grace Hopper are supported by the open kernel modules only"
    if hidden and not answering:
        wrong = f"the proprietary kernel module does not drive the {kernel.pci_gpus} GPUs"
        return [failed("driver-module", "driver-module-wrong", wrong, cause=cause, fix=INSTALL_OPEN)]
    wrong = f"proprietary kernel module with {(picky or answering)[0].name or 'these GPUs'}"
    return [warned("driver-module", "driver-module-wrong", wrong, cause=cause, fix=INSTALL_OPEN)]


def judge_cuda(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The driver supports CUDA 12.9, with which the images are built: a container brings its own CUDA libraries, and
    the host's driver bounds which of them start. https://docs.nvidia.com/deploy/cuda-compatibility/
    """
    title = "CUDA version of the driver"
    if reason := no_gpu_wanted(needs) or _no_driver(facts):
        return [skipped("cuda", title, reason)]
    enough = at_least(facts.gpus.cuda, minimums.CUDA)
    if enough is None:
        return [unknown("cuda", f"CUDA version {facts.gpus.cuda or 'not told'}", cause="its number cannot be read")]
    needed = f"CUDA {facts.gpus.cuda} ({minimums.CUDA} or later is needed)"
    if enough:
        return [passed("cuda", needed)]
    if at_least(facts.gpus.driver, minimums.DRIVER) is False:
        return [skipped("cuda", title, "the driver is too old")]
    cause, fix = "CUDA in a container is bounded by the host's driver", INSTALL_WSL if facts.system.wsl else INSTALL
    return [failed("cuda", "cuda-too-old", needed, cause=cause, fix=fix)]


def _no_driver(facts: HostFacts) -> str:
    return "" if facts.gpus.state == "ok" else "no driver answers"


CHECKS = (
    Check(
        "driver",
        "gpu",
        "the NVIDIA driver answers",
        judge_driver,
        (
            "driver-broken",
            "driver-hangs",
            "driver-library-missing",
            "driver-mismatch",
            "driver-missing",
            "driver-module-wrong",
            "driver-no-permission",
            "driver-nodes-missing",
            "driver-not-built",
            "driver-not-loaded",
            "driver-not-signed",
            "gpu-missing",
            "gpu-passthrough",
            "nouveau-loaded",
        ),
    ),
    Check(
        "driver-version",
        "gpu",
        f"the driver is {minimums.DRIVER} or later, of a supported branch",
        judge_version,
        ("driver-branch-ended", "driver-too-old"),
    ),
    Check(
        "driver-module",
        "gpu",
        "the driver's kernel module is of the kind that the GPUs need",
        judge_module,
        ("driver-module-wrong",),
    ),
    Check("cuda", "gpu", f"the driver supports CUDA {minimums.CUDA} or later", judge_cuda, ("cuda-too-old",)),
)

"""The host itself: operating system, processor and memory; for the process runtime its tools."""

from nimctl.core.facts import HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import look_failed, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human
from nimctl.doctor.versions import at_least

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
# vLLM, nginx, torch and CUDA in host memory beside the weights: measured on the pinned CPU stack, rounded up.
PROGRAM_BYTES = 4 * 2**30


def judge_system(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The distribution, told and never refused; NVIDIA recommends one, and others work."""
    system = facts.system
    name = system.os_name or " ".join(part for part in (system.os_id, system.os_version) if part)
    if not name:
        return [unknown("os", "operating system", cause="/etc/os-release could not be read")]
    validated = system.os_id == "ubuntu" and at_least(system.os_version, minimums.UBUNTU)
    remark = "" if validated else f"; NVIDIA has validated Ubuntu {minimums.UBUNTU} and later"
    inside = "; WSL 2: the driver is Windows'" if system.wsl else ""
    return [passed("os", f"{name}, kernel {system.kernel or 'unknown'}{inside}{remark}")]


def judge_architecture(facts: HostFacts, needs: Needs) -> list[Finding]:
    """There are images for this processor."""
    arch = (facts.docker.architecture if needs.runtime == "docker" else None) or facts.system.arch
    if arch is None:
        return [unknown("arch", "processor architecture", cause="neither the system nor Docker names it")]
    if known := _ARCHITECTURES.get(arch.lower()):
        return [passed("arch", f"processor architecture {known}")]
    return [
        failed(
            "arch",
            "image-incompatible",
            f"processor architecture {arch}",
            cause="the images exist for amd64 and arm64",
            fix="Use a host with such a processor.",
        )
    ]


def judge_memory(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Host memory holds the program, its shared memory, and on the CPU the weights."""
    total, free, recipe = facts.system.memory_total, facts.system.memory_available, needs.recipe
    if total is None:
        return [unknown("memory", "host memory", cause="/proc/meminfo could not be read")]
    stated = f"host memory {human(total)}" + (f", {human(free)} available" if free is not None else "")
    on_cpu = bool(no_gpu_wanted(needs))
    weights = (recipe.weights_bytes or 0) if recipe and on_cpu else 0
    if recipe is not None and weights > total:
        cause = f"on the CPU the weights of {recipe.name} ({human(weights)}) are held in host memory"
        return [failed("memory", "no-layout", stated, cause=cause, fix="Use GPUs, a larger host, or a smaller model.")]
    shared = recipe.shm_bytes if recipe and not on_cpu else 0
    wanted = weights + PROGRAM_BYTES + shared
    if free is not None and free < wanted:
        cause = f"the server may use {human(wanted)}: the program, shared memory" + (", weights" if weights else "")
        fix = "Stop other programs; see `free -h` and `ps aux --sort=-rss | head`."
        return [warned("memory", "memory-low", stated, cause=cause, fix=fix)]
    return [passed("memory", stated)]


def judge_nginx(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The process runtime finds its front."""
    if needs.runtime != "process":
        return [skipped("front", "nginx", "it is in the image")]
    if facts.tools.nginx:
        return [passed("front", f"nginx {facts.tools.nginx_version or 'of unknown version'} ({facts.tools.nginx})")]
    if problem := look_failed(facts, "tools"):
        return [unknown("front", "nginx", cause=problem)]
    cause = "neither PATH nor the system folders have it"
    fix = "Install it (`sudo apt-get install nginx-light`), or use --runtime docker."
    return [failed("front", "front-missing", "no nginx", cause=cause, fix=fix)]


def judge_engine(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The process runtime finds its engine."""
    if needs.runtime != "process":
        return [skipped("engine", "vLLM", "it is in the image")]
    if facts.tools.vllm:
        return [passed("engine", f"vLLM {facts.tools.vllm} in this Python")]
    if problem := look_failed(facts, "tools"):
        return [unknown("engine", "vLLM", cause=problem)]
    cause = "no package vllm is installed beside nimctl"
    fix = "Install it with `pip install 'nimctl[engine]'` on a GPU host, or use --runtime docker."
    return [failed("engine", "engine-missing", "no vLLM", cause=cause, fix=fix)]


CHECKS = (
    Check("os", "host", f"the operating system (Ubuntu {minimums.UBUNTU} or later is recommended)", judge_system),
    Check("arch", "host", "the processor is amd64 or arm64", judge_architecture),
    Check("memory", "host", "host memory is enough", judge_memory),
    Check("front", "process", "nginx is installed (process runtime)", judge_nginx),
    Check("engine", "process", "vLLM is installed (process runtime)", judge_engine),
)

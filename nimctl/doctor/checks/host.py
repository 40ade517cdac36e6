"""The host itself: operating system, processor and memory; for the process runtime its tools."""

from nimctl.core.facts import HostFacts
from nimctl.core.platforms import architecture_of
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import chosen_gpus, look_failed, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human
from nimctl.doctor.versions import at_least

_BUILT_FOR = ("amd64", "arm64")  # what there are images for
# vLLM, nginx, torch and CUDA in host memory beside the weights: measured on the pinned CPU stack, rounded up.
PROGRAM_BYTES = 4 * 2**30


def judge_system(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The distribution, told and never refused: NVIDIA recommends Ubuntu 22.04 or later, and others work.
    https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html
    """
    system = facts.system
    name = system.os_name or " ".join(part for part in (system.os_id, system.os_version) if part)
    if not name:
        return [unknown("os", "operating system", cause="/etc/os-release could not be read")]
    validated = system.os_id == "ubuntu" and at_least(system.os_version, minimums.UBUNTU)
    remark = () if validated else (f"NVIDIA has validated Ubuntu {minimums.UBUNTU} and later",)
    machine = (f"machine: {system.product}",) if system.product else ()
    return [passed("os", f"{name}, kernel {system.kernel or 'unknown'}", evidence=(*machine, *remark))]


def judge_architecture(facts: HostFacts, needs: Needs) -> list[Finding]:
    """There are images for the processor, and the image on this host is for it: one for another kind of processor ends
    at once with "exec format error", or runs under emulation, where no GPU can be used.
    https://docs.docker.com/build/building/multi-platform/
    """
    arch = (facts.docker.architecture if needs.runtime == "docker" else None) or facts.system.arch
    if arch is None:
        return [unknown("arch", "processor architecture", cause="neither the system nor Docker names it")]
    known = architecture_of(arch.lower())
    if known not in _BUILT_FOR:
        return [
            failed(
                "arch",
                "image-incompatible",
                f"processor architecture {arch}",
                cause="the images exist for amd64 and arm64",
                fix="Use a host with such a processor.",
            )
        ]
    image = facts.image if needs.runtime == "docker" else None
    if image is None or not image.present or image.architecture is None:
        return [passed("arch", f"processor architecture {known}")]
    if architecture_of(image.architecture.lower()) == known:
        return [passed("arch", f"processor architecture {known}, as the image's")]
    return [
        failed(
            "arch",
            "image-incompatible",
            f"processor architecture {known}, and the image is for {image.architecture}",
            cause=f"{image.reference} was pulled or built for another kind of processor",
            fix=f"Remove it (`docker rmi {image.reference}`), and bring it for this host with `nimctl pull` or `nimctl "
            f"build --platform linux/{known}`.",
        )
    ]


def judge_memory(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Host memory holds the program, its shared memory, and on the CPU the weights; where a control group allows the
    process runtime less than the machine has, that is what counts. https://docs.kernel.org/admin-guide/cgroup-v2.html
    Weights for GPUs are read through the page cache, and loading takes longer where that cannot hold them; vLLM itself
    reads ahead only where they fit into 90 % of what is available. https://docs.vllm.ai/en/latest/api/vllm/config/load/
    """
    total, free, recipe = facts.system.memory_total, facts.system.memory_available, needs.recipe
    if total is None:
        return [unknown("memory", "host memory", cause="/proc/meminfo could not be read")]
    limit = facts.system.memory_limit if needs.runtime == "process" else None
    stated = f"host memory {human(total)}" + (f", {human(free)} available" if free is not None else "")
    if limit is not None and limit < total:
        total, free = limit, min(limit, free) if free is not None else limit
        stated += f", {human(limit)} of it allowed here"
    on_cpu = bool(no_gpu_wanted(needs))
    all_weights = (recipe.weights_bytes or 0) if recipe else 0
    weights = all_weights if on_cpu else 0
    if recipe is not None and weights > total:
        cause = f"on the CPU the weights of {recipe.name} ({human(weights)}) are held in host memory"
        return [failed("memory", "no-layout", stated, cause=cause, fix="Use GPUs, a larger host, or a smaller model.")]
    shared = recipe.shm_bytes if recipe and not on_cpu else 0
    if free is not None and free < shared:
        shared = 0  # the check `shm` says so
    wanted = weights + PROGRAM_BYTES + shared
    if free is not None and free < wanted:
        cause = f"the server may use {human(wanted)}: the program, shared memory" + (", weights" if weights else "")
        fix = "Stop other programs; see `free -h` and `ps aux --sort=-rss | head`."
        return [warned("memory", "memory-low", stated, cause=cause, fix=fix)]
    if all_weights > total and _gpus_hold(facts, needs, all_weights):
        cause = f"the weights ({human(all_weights)}) are read through the page cache, which cannot hold them"
        fix = "They can be loaded all the same, only slower: keep the cache on a fast local disk."
        return [warned("memory", "memory-below-weights", stated, cause=cause, fix=fix, severity="info")]
    return [passed("memory", stated)]


def _gpus_hold(facts: HostFacts, needs: Needs, size: int) -> bool:
    """Whether the weights fit into the chosen GPUs, as far as those tell; not where these share the host's memory."""
    chosen = chosen_gpus(facts, needs)
    if any(g.unified_memory for g in chosen):
        return False
    return sum(g.memory_total or 0 for g in chosen) >= size


def judge_wsl(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Whether this is Windows' subsystem for Linux, where the driver belongs to Windows, pinned memory is bounded, and
    MIG, the switch fabric and part of NVML do not exist: told, and no fault.
    https://docs.nvidia.com/cuda/wsl-user-guide/
    """
    if facts.system.wsl is None:
        return [unknown("wsl", "WSL", cause="the kernel does not tell its name")]
    if not facts.system.wsl:
        return [skipped("wsl", "WSL", "this is not Windows")]
    return [
        passed(
            "wsl",
            "WSL 2: the driver and its updates are Windows'",
            evidence=(
                "pinned host memory is bounded, so that moving weights or KV blocks to the host may fail",
                "NVML tells less: no processes of other machines, no MIG, no fabric",
                "memory and disk are what .wslconfig gives to this machine; a cache below /mnt is slow",
            ),
        )
    ]


def judge_inside(facts: HostFacts, needs: Needs) -> list[Finding]:
    """nimctl looks at the host itself: inside a container /proc, disks and limits are the container's, paths mean other
    folders to the host's Docker, and the driver is seen only where it was passed in.
    https://systemd.io/CONTAINER_INTERFACE/
    """
    inside = facts.system.container
    if inside is None:
        return [unknown("inside-container", "inside a container or not", cause="/proc could not be read")]
    if inside == "none":
        return [passed("inside-container", "nimctl runs on the host itself")]
    title = f"nimctl runs inside a container ({inside})"
    if needs.runtime == "process":
        return [passed("inside-container", f"{title}, as the process runtime will")]
    cause = "disks, memory and folders are judged as this container sees them, and Docker's may be others"
    fix = "Run nimctl on the host, or use --runtime process to serve in this container."
    return [warned("inside-container", "inside-container", title, cause=cause, fix=fix, severity="info")]


def judge_nginx(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The process runtime finds nginx, which is the front that clients reach. https://nginx.org/en/docs/"""
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
    """The process runtime finds vLLM, its engine, in the Python that runs nimctl.
    https://docs.vllm.ai/en/latest/getting_started/installation/
    """
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
    Check("arch", "host", "the processor is amd64 or arm64, as the image", judge_architecture, ("image-incompatible",)),
    Check("memory", "host", "host memory is enough", judge_memory, ("memory-below-weights", "memory-low", "no-layout")),
    Check("wsl", "host", "this is Windows' subsystem for Linux", judge_wsl),
    Check(
        "inside-container", "host", "nimctl runs on the host, not in a container", judge_inside, ("inside-container",)
    ),
    Check("front", "process", "nginx is installed (process runtime)", judge_nginx, ("front-missing",)),
    Check("engine", "process", "vLLM is installed (process runtime)", judge_engine, ("engine-missing",)),
)

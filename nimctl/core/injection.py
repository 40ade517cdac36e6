"""The ways in which Docker hands GPUs to a container, and why one of them will not work here. Pure.

One judgement for the checks, the plan and the probe. https://docs.nvidia.com/datacenter/cloud-native/container-toolkit
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nimctl.core import cdi
from nimctl.core.facts import HostFacts

Mode = Literal["runtime", "gpus", "cdi"]
WORDS: Mapping[Mode, str] = {
    "runtime": "the nvidia runtime (--runtime=nvidia)",
    "gpus": "the runtime hook (--gpus)",
    "cdi": "CDI (--device nvidia.com/gpu=...)",
}
_RUNTIME = "nvidia"
# From 1.18.0 on the runtime's mode "auto" makes a CDI specification on the fly, and sets the hook aside:
# https://github.com/NVIDIA/nvidia-container-toolkit/pull/910
_JIT_CDI = (1, 18)
_CDI_MODES = ("cdi", "jit-cdi", "csv")
_HOOK_MODES = ("auto", "legacy")


@dataclass(frozen=True)
class Way:
    """A way in; `problem` is why it does not work, empty where nothing speaks against it.

    `there` tells a way that is set up and broken from one that is not set up at all.
    """

    mode: Mode
    problem: str = ""
    there: bool = True


def ways(facts: HostFacts) -> tuple[Way, Way, Way]:
    """All of them, in the order in which a run tries them: the nvidia runtime, `--gpus`, CDI."""
    blocked = _blocked(facts)
    return (
        Way("runtime", blocked or _runtime_problem(facts), _RUNTIME in facts.docker.runtimes),
        Way("gpus", blocked or _hook_problem(facts), facts.toolkit.hook is not None),
        Way("cdi", blocked or _cdi_problem(facts), bool(cdi.gpu_specs(facts))),
    )


def injection_modes(facts: HostFacts) -> tuple[Mode, ...]:
    """The ways against which nothing speaks, in the order in which a run tries them."""
    return tuple(way.mode for way in ways(facts) if not way.problem)


def engine_knows_devices(facts: HostFacts, mode: Mode) -> bool | None:
    """Whether the engine itself gives the device nodes, and not a hook behind its back; None: it cannot be told.

    A hook changes the container's control group without the engine, so that the next change of it, which with systemd
    is each `systemctl daemon-reload`, takes the GPUs away:
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html
    """
    if mode == "cdi":
        return True
    if mode == "gpus":
        return False
    return runtime_uses_cdi(facts)


def runtime_uses_cdi(facts: HostFacts) -> bool | None:
    """Whether the nvidia runtime hands GPUs over by CDI and not by its hook; None: it cannot be told."""
    mode = facts.toolkit.mode or "auto"
    if mode in _CDI_MODES:
        return True
    if mode == "legacy":
        return False
    if facts.toolkit.config_problem or mode != "auto":
        return None
    version = _numbers(facts.toolkit.version)
    return None if version is None else version >= _JIT_CDI


def _numbers(version: str | None) -> tuple[int, int] | None:
    """The first two numbers of the toolkit's version."""
    parts = (version or "").removeprefix("v").split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _blocked(facts: HostFacts) -> str:
    """Why no way works with this engine."""
    if facts.docker.kind == "podman":
        # https://github.com/containers/podman/issues/22645
        return "Podman answers on Docker's socket, and ignores there what asks for GPUs"
    if facts.docker.kind == "desktop" and not facts.system.wsl:
        # https://docs.docker.com/desktop/features/gpu/
        return "Docker Desktop runs containers in a virtual machine without GPUs, except with WSL 2"
    return ""


def config_refusal(facts: HostFacts) -> str:
    """Why runtime and hook both end at once: their file is there and cannot be understood; empty where it is not so.

    https://github.com/NVIDIA/nvidia-container-toolkit/blob/main/internal/runtime/runtime.go (Run) and
    https://github.com/NVIDIA/nvidia-container-toolkit/blob/main/cmd/nvidia-container-runtime-hook/hook_config.go
    """
    problem = facts.toolkit.config_problem
    if not problem or "may not read" in problem:  # root reads it all the same
        return ""
    return f"{facts.toolkit.config} cannot be read, and the toolkit does not start without it: {problem}"


def _runtime_problem(facts: HostFacts) -> str:
    docker = facts.docker
    if _RUNTIME not in docker.runtimes:
        return "Docker has no runtime named nvidia"
    if _RUNTIME in docker.missing_runtimes:
        return f"the program of Docker's runtime nvidia is not there: {(docker.runtime_paths or {}).get(_RUNTIME)}"
    if problem := config_refusal(facts):
        return problem
    unseen = any(problem.startswith(("cdi: ", "docker's cdi: ")) for problem in facts.problems)
    if facts.toolkit.mode == "cdi" and not unseen and not any(s.devices for s in cdi.gpu_specs(facts)):
        return "the toolkit's mode is cdi, and no CDI specification lists a GPU"
    return "" if runtime_uses_cdi(facts) in (True, None) else _control_group_problem(facts)


def _hook_problem(facts: HostFacts) -> str:
    if facts.toolkit.hook is None:
        return "nvidia-container-runtime-hook is not there"
    if facts.docker.kind == "snap":
        # https://github.com/NVIDIA/nvidia-docker/issues/1637
        return "Docker is a snap, which does not see this host's nvidia-container-runtime-hook"
    if problem := config_refusal(facts):
        return problem
    if (facts.toolkit.mode or "auto") not in _HOOK_MODES:
        # https://github.com/NVIDIA/nvidia-container-toolkit/blob/v1.17.8/cmd/nvidia-container-runtime-hook/main.go
        return f"the toolkit's mode is {facts.toolkit.mode}, in which its hook refuses"
    return _control_group_problem(facts)


def _control_group_problem(facts: HostFacts) -> str:
    """A hook must leave control groups alone where Docker is rootless, and must set them where it is not.

    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html#rootless-mode
    """
    if facts.toolkit.config_problem:
        return ""
    if facts.docker.rootless and facts.toolkit.no_cgroups is not True and facts.toolkit.config:
        return "Docker is rootless, and the toolkit's no-cgroups is not set"
    if facts.docker.rootless is False and facts.toolkit.no_cgroups:
        return "the toolkit's no-cgroups is set, which is for rootless Docker only"
    return ""


def _cdi_problem(facts: HostFacts) -> str:
    if not cdi.usable_specs(facts):
        return str(cdi.names_of((), facts).problem)
    devices = cdi.resolve(facts)
    if not devices.used and devices.clashes:
        return "two CDI specifications of one folder define the same GPUs"
    if not devices.used:
        return "Docker does not know the GPUs of the CDI specification"
    for spec in dict.fromkeys(devices.used.values()):
        if spec.missing:  # the engine refuses a missing device node, runc a missing mount or hook
            return f"{spec.path} names files that are not there: {spec.missing[0]}"
    return ""

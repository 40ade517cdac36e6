"""Which GPUs a run gets, and how docker is asked for them. Pure."""

from nimctl.core import cdi
from nimctl.core.docker_state import docker_error, podman_error
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, select
from nimctl.core.injection import WORDS, Mode, injection_modes, ways
from nimctl.core.recipes import Recipe
from nimctl.launch.model import GpuRequest

NO_GPUS = "none"


def choose_gpus(recipe: Recipe | None, asked: str | None, facts: HostFacts) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs of a run (none means the CPU) and what the user should know about that choice.

    Nobody asked (None): every GPU of the host; on a host without GPUs the CPU if the recipe is made for it. Raises
    `gpu-missing` or `gpu-spec-invalid`. A run never falls back to the CPU when GPUs were asked for by name.
    """
    if asked is not None and asked.strip() == NO_GPUS:
        return (), (() if recipe and recipe.cpu else (_CPU_SLOW,))
    if asked is None and not facts.gpus.gpus and recipe is not None and recipe.cpu:
        why = facts.gpus.detail or "NVML lists no GPU"
        return (), (f"cpu-no-gpu: No GPU was found ({why}); {recipe.name} is made to run on the CPU as well.",)
    chosen = select(facts.gpus, asked or "all")
    lost = [str(g.index) for g in facts.gpus.gpus if g.error is not None]
    if lost and (asked or "all") == "all":
        return chosen, (f"gpu-left-out: GPU {', '.join(lost)} reports an error and is left out.",)
    return chosen, ()


_CPU_SLOW = "cpu-on-request: The CPU was asked for; this model is made for GPUs, so it will be very slow or not start."


def request_gpus(gpus: tuple[Gpu, ...], facts: HostFacts, wanted: Mode | None = None) -> GpuRequest:
    """How docker on this host hands these GPUs to a container.

    In this order: the `nvidia` runtime as on NVIDIA's pages, docker's own `--gpus` where the toolkit's hook is on the
    PATH, a CDI specification; or the one way that is `wanted`. Docker refuses `--gpus` without that hook ("could not
    select device driver"), so the runtime then learns its GPUs from NVIDIA_VISIBLE_DEVICES. Raises the `docker-*` error
    of a docker that cannot be used, and `gpu-runtime-missing` when there is no way, or when CDI does not list a GPU
    that is asked for. A way that is set up and cannot work is passed over, as the doctor's check `gpu-runtime` says.
    """
    if not gpus:
        return GpuRequest("none", (), 0, "no GPU is used")
    if error := docker_error(facts.docker, facts.system.groups) or podman_error(facts.docker):
        raise error
    if wanted is None:
        return next((r for m in injection_modes(facts) if (r := _by(m, gpus, facts))), None) or _through_cdi(
            gpus, facts
        )
    if wanted == "cdi":
        return _through_cdi(gpus, facts)
    if wanted in injection_modes(facts) and (request := _by(wanted, gpus, facts)):
        return request
    raise NimctlError(
        "gpu-runtime-missing",
        f"GPUs do not get into containers by {WORDS[wanted]} here",
        cause=next(way.problem for way in ways(facts) if way.mode == wanted),
        fix="Leave gpu_mode (NIMCTL_GPU_MODE) out; `nimctl doctor --probe` tries every way.",
    )


def possible_requests(gpus: tuple[Gpu, ...], facts: HostFacts) -> tuple[tuple[Mode, GpuRequest], ...]:
    """Every way against which nothing speaks, the one that a run takes by itself first."""
    found: list[tuple[Mode, GpuRequest]] = []
    for mode in injection_modes(facts):
        if mode == "cdi" and cdi.names_of(gpus, facts).problem:
            continue
        found.append((mode, _by(mode, gpus, facts) or _through_cdi(gpus, facts)))
    return tuple(found)


def _by(mode: Mode, gpus: tuple[Gpu, ...], facts: HostFacts) -> GpuRequest | None:
    """By the runtime or the hook; None for CDI, which may not know the GPUs."""
    devices = device_names(gpus, facts)
    if mode == "runtime" and facts.toolkit.hook:
        return GpuRequest("runtime", devices, len(gpus), "docker has the nvidia runtime registered")
    if mode == "runtime":
        why = "docker has the nvidia runtime registered, and --gpus would need nvidia-container-runtime-hook"
        return GpuRequest("runtime-env", devices, len(gpus), why)
    if mode == "gpus":
        return GpuRequest("gpus", devices, len(gpus), f"docker's --gpus works through {facts.toolkit.hook}")
    return None


def device_names(gpus: tuple[Gpu, ...], facts: HostFacts) -> tuple[str, ...]:
    """The chosen GPUs as docker names them: `all` when the host has no others, not even broken ones; else indices."""
    if len(gpus) == len(facts.gpus.gpus):
        return ("all",)
    return tuple(str(g.index) for g in gpus)


def _through_cdi(gpus: tuple[Gpu, ...], facts: HostFacts) -> GpuRequest:
    found = cdi.names_of(gpus, facts)
    if found.path is None:
        reasons = [way.problem for way in ways(facts) if way.mode != "cdi"]
        raise NimctlError(
            "gpu-runtime-missing",
            "docker on this host cannot hand GPUs to a container",
            cause="; ".join(dict.fromkeys([*reasons, str(found.problem)])),
            fix="Install the NVIDIA Container Toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker "
            "&& sudo systemctl reload docker`.",
        )
    if found.problem:
        raise NimctlError(
            "gpu-runtime-missing",
            f"the CDI specification does not know GPU {', '.join(str(g.index) for g in found.missing)}",
            cause=found.problem,
            fix=f"Write it anew: sudo nvidia-ctk cdi generate --output={found.path}",
        )
    return GpuRequest("cdi", found.names, len(gpus), f"docker injects the GPUs through {found.path} (CDI)")

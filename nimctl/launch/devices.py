"""Which GPUs a run gets, and how docker is asked for them. Pure."""

from dataclasses import replace

from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, select
from nimctl.core.recipes import Recipe
from nimctl.launch.model import GpuRequest

CDI_KIND = "nvidia.com/gpu"
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


def request_gpus(gpus: tuple[Gpu, ...], facts: HostFacts) -> GpuRequest:
    """How docker on this host hands these GPUs to a container.

    In this order: the `nvidia` runtime as on NVIDIA's pages, docker's own `--gpus` where the toolkit's hook is on the
    PATH, a CDI specification. Raises `gpu-runtime-missing` when there is none of them, or when the CDI specification
    does not list a GPU that is asked for.
    """
    if not gpus:
        return GpuRequest("none", (), 0, "no GPU is used")
    devices = device_names(gpus, facts)
    if "nvidia" in facts.docker.runtimes:
        return GpuRequest("runtime", devices, len(gpus), "docker has the nvidia runtime registered")
    if facts.toolkit.hook:
        return GpuRequest("gpus", devices, len(gpus), f"docker's --gpus works through {facts.toolkit.hook}")
    return _through_cdi(GpuRequest("cdi", devices, len(gpus)), gpus, facts)


def device_names(gpus: tuple[Gpu, ...], facts: HostFacts) -> tuple[str, ...]:
    """The chosen GPUs as docker names them: `all` when the host has no others, not even broken ones; else indices."""
    if len(gpus) == len(facts.gpus.gpus):
        return ("all",)
    return tuple(str(g.index) for g in gpus)


def _through_cdi(request: GpuRequest, gpus: tuple[Gpu, ...], facts: HostFacts) -> GpuRequest:
    specs = [s for s in facts.cdi if s.kind == CDI_KIND and s.problem is None]
    if not specs or not facts.docker.cdi_spec_dirs:
        what = "CDI is off in docker" if specs else f"there is no CDI specification for {CDI_KIND}"
        raise NimctlError(
            "gpu-runtime-missing",
            "docker on this host cannot hand GPUs to a container",
            cause=f"no nvidia runtime is registered, no nvidia-container-runtime-hook is on the PATH, and {what}",
            fix="Install the NVIDIA Container Toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker` "
            "and restart docker.",
        )
    listed = {name for spec in specs for name in spec.devices}
    if request.devices == ("all",) and "all" not in listed:
        request = replace(request, devices=tuple(str(g.index) for g in gpus))
    if missing := [d for d in request.devices if d not in listed]:
        raise NimctlError(
            "gpu-runtime-missing",
            f"the CDI specification does not know GPU {', '.join(missing)}",
            cause=f"{', '.join(s.path for s in specs)} lists {', '.join(sorted(listed)) or 'no device'}: it is stale",
            fix="Write it again: `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
        )
    return replace(request, why=f"docker injects the GPUs through {specs[0].path} (CDI)")

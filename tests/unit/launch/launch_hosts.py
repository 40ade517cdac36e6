"""Hosts and wishes to plan with: a bare machine, machines with GPUs, and what a user asks of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nimctl.core import recipes
from nimctl.core.facts import (
    CacheFacts,
    CdiSpec,
    CredentialFacts,
    DockerFacts,
    HostFacts,
    PortFacts,
    SystemFacts,
    ToolkitFacts,
)
from nimctl.core.gpus import Gpu, GpuInventory
from nimctl.launch.model import LaunchPlan, RunOptions
from nimctl.launch.plan import make_plan

IMAGE = "registry.example/nimctl/cuda:1"
HOOK = "/usr/bin/nvidia-container-runtime-hook"


def gpus(count: int, name: str = "NVIDIA H200", memory: int = 150_754_820_096) -> tuple[Gpu, ...]:
    return tuple(Gpu(i, uuid=f"GPU-{i:08d}", name=name, memory_total=memory) for i in range(count))


def host(
    *found: Gpu, runtime: bool = False, hook: bool = False, cdi: tuple[str, ...] | None = None, cdi_on: bool = True
) -> HostFacts:
    """A host with these GPUs, whose docker knows the nvidia runtime, the hook or CDI devices of these names."""
    docker = DockerFacts(
        "ok",
        endpoint="unix:///var/run/docker.sock",
        version="28.0.0",
        runtimes=("nvidia", "runc") if runtime else ("runc",),
        cdi_spec_dirs=("/etc/cdi",) if cdi_on else None,
    )
    return HostFacts(
        nimctl="0.1.0",
        taken_at="2026-01-01T00:00:00Z",
        system=SystemFacts(uid=1000),
        gpus=GpuInventory("ok", gpus=found) if found else GpuInventory("no-library", detail="no NVIDIA driver"),
        docker=docker,
        toolkit=ToolkitFacts(hook=HOOK if hook else None),
        cdi=(CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", cdi),) if cdi is not None else (),
        image_store=None,
        cache=CacheFacts("/data/nim", True),
        port=PortFacts("127.0.0.1", 8000),
        credentials=CredentialFacts(),
    )


def asked(recipe: str | None = "demo", **changes: Any) -> RunOptions:
    """What a user of uid 1000 asks for; the image of ours is named, as the command line always does."""
    found = recipes.load(recipe) if recipe else None
    image = found.image if found and found.image else IMAGE
    options = RunOptions(
        recipe=found,
        name=recipe or "some-image",
        cache=Path("/data/nim"),
        uid=1000,
        image=image,
        secrets_dir=Path("/run/user/1000/nimctl"),
    )
    return replace(options, **changes)


def plan(recipe: str | None = "demo", on: HostFacts | None = None, **changes: Any) -> LaunchPlan:
    return make_plan(asked(recipe, **changes), on or host())


def note_ids(made: LaunchPlan) -> list[str]:
    return [note.split(":", 1)[0] for note in made.notes]

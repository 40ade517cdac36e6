"""The stage `gpus`: what the engine runs on."""

import importlib.metadata
from dataclasses import dataclass

from entrypoint.engine.model import (
    Device,
    engine_device,
    gpus_to_use,
    over_nodes,
)
from entrypoint.engine.nodes import ALONE, Role
from entrypoint.run import Run
from entrypoint.settings import Settings
from nimctl.core.gpus import Gpu, GpuInventory
from nimctl.core.gpus.nvml import read_inventory
from nimctl.core.meminfo import host_memory
from nimctl.core.planning.cluster import Cluster, cluster_of


@dataclass(frozen=True)
class Hardware:
    """What the engine runs on: the kind of engine, what NVML says, the GPUs to use, and these as a plan sees them."""

    device: Device
    vllm_version: str | None
    inventory: GpuInventory
    gpus: tuple[Gpu, ...]
    cluster: Cluster


def find_gpus(run: Run) -> Hardware:
    """Look at the GPUs once and choose those that were asked for."""
    found = hardware_of(run.settings, run.members.role)
    inventory = found.inventory
    seen = ", ".join(f"{g.index} {g.name or 'unknown'}" for g in inventory.gpus) or f"none ({inventory.state})"
    run.journal.info("gpus", f"engine for {found.device}; GPUs visible: {seen}; asked for: {run.settings.gpus}")
    return found


def hardware_of(settings: Settings, role: Role = ALONE) -> Hardware:
    """What is there for what was asked, on this node and the others like it. Raises `gpu-lost`, `gpu-spec-invalid`."""
    version, inventory, memory = installed_vllm(), read_inventory(), host_memory()
    gpus = gpus_to_use(settings, inventory)
    cluster = cluster_of(gpus, memory_total=memory.total, memory_available=memory.available)
    cluster = over_nodes(cluster, role)
    return Hardware(engine_device(settings, version), version, inventory, gpus, cluster)


def installed_vllm() -> str | None:
    """The version of vLLM that is installed beside us, such as `0.32.0+cpu`."""
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None

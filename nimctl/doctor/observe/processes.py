"""Who the processes are that hold memory of a GPU."""

from pathlib import Path

from nimctl.core.gpus import GpuInventory


def name_holders(inventory: GpuInventory, proc: Path = Path("/proc")) -> GpuInventory:
    """The inventory with the names of its processes."""
    return inventory

"""The GPUs of this machine: what NVML says of them (only here it is asked), and which of them `--gpus` means."""

from nimctl.core.gpus.model import Fabric, Gpu, GpuInventory, GpuLink, GpuProcess, MigDevice, State
from nimctl.core.gpus.nvml import INIT_STATES, read_inventory
from nimctl.core.gpus.select import HANGS, count_of, select

__all__ = [
    "HANGS",
    "INIT_STATES",
    "Fabric",
    "Gpu",
    "GpuInventory",
    "GpuLink",
    "GpuProcess",
    "MigDevice",
    "State",
    "count_of",
    "read_inventory",
    "select",
]

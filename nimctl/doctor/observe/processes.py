"""Who the processes are that hold memory of a GPU."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nimctl.core.gpus import GpuInventory, GpuProcess
from nimctl.doctor.observe.files import read

MOST = 64  # processes that are looked up; a host that has more keeps the rest by their number
# The control group of a container ends in its id: `/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`. Of nested
# containers the first is the one that this host knows. https://docs.docker.com/engine/containers/runmetrics/
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_DIGITS = 12  # of an id, as `docker ps` shows it


def name_holders(inventory: GpuInventory, proc: Path = Path("/proc")) -> GpuInventory:
    """The inventory with the name and the container of each process, where `proc` shows them. Never raises.

    NVML tells numbers of the host: seen from a container or as another user with hidden processes, they stay numbers.
    """
    if not any(gpu.processes for gpu in inventory.gpus):
        return inventory
    known = {pid: _who(proc / str(pid)) for pid in list(_pids(inventory))[:MOST]}

    def named(process: GpuProcess) -> GpuProcess:
        name, container = known.get(process.pid, (None, None))
        return replace(process, name=name, container=container)

    gpus = (replace(g, processes=tuple(named(p) for p in g.processes)) if g.processes else g for g in inventory.gpus)
    return replace(inventory, gpus=tuple(gpus))


def _pids(inventory: GpuInventory) -> Iterator[int]:
    """Each process once, those that hold most first: they are who a full GPU is to be explained by."""
    held: dict[int, int] = {}
    for gpu in inventory.gpus:
        for process in gpu.processes:
            held[process.pid] = held.get(process.pid, 0) + (process.memory or 0)
    yield from sorted(held, key=lambda pid: (-held[pid], pid))


def _who(folder: Path) -> tuple[str | None, str | None]:
    container = _CONTAINER.search(read(folder / "cgroup") or "")
    return read(folder / "comm") or None, container[0][:_DIGITS] if container else None

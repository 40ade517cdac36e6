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
# Docker's own place at the top of the tree. A container below a user's slice belongs to a rootless daemon, one below
# another container to a daemon inside: the daemon of this machine lists neither.
_DOCKERS = re.compile(r"[^/]*:(/docker/|/system\.slice/docker-)")
_ENGINES = {
    "libpod-": "podman",
    "crio-": "cri-o",
    "cri-containerd-": "containerd",
    "nerdctl-": "containerd",
}
# The namespace of processes in which the kernel starts has this number: `PROC_PID_INIT_INO` in
# https://github.com/torvalds/linux/blob/master/include/uapi/linux/nsfs.h
_FIRST_NAMESPACE = "pid:[4026531836]"


def name_holders(inventory: GpuInventory, proc: Path = Path("/proc")) -> GpuInventory:
    """The inventory with the name and the container of each process, where `proc` shows them. Never raises.

    NVML tells numbers of the host: seen from a container, whose numbers are others, or as another user with hidden
    processes, they stay numbers.
    """
    if not any(gpu.processes for gpu in inventory.gpus) or _has_its_own_numbers(proc):
        return inventory
    known = {pid: _who(proc / str(pid)) for pid in list(_pids(inventory))[:MOST]}

    def named(process: GpuProcess) -> GpuProcess:
        name, container, engine = known.get(process.pid, (None, None, None))
        return replace(process, name=name, container=container, engine=engine)

    gpus = (replace(g, processes=tuple(named(p) for p in g.processes)) if g.processes else g for g in inventory.gpus)
    return replace(inventory, gpus=tuple(gpus))


def _pids(inventory: GpuInventory) -> Iterator[int]:
    """Each process once, those that hold most first: they are who a full GPU is to be explained by."""
    held: dict[int, int] = {}
    for gpu in inventory.gpus:
        for process in gpu.processes:
            held[process.pid] = held.get(process.pid, 0) + (process.memory or 0)
    yield from sorted(held, key=lambda pid: (-held[pid], pid))


def _has_its_own_numbers(proc: Path) -> bool:
    """Whether the processes below `proc` are counted apart from those of the host."""
    try:
        return str((proc / "self/ns/pid").readlink()) != _FIRST_NAMESPACE
    except OSError:
        return False


def _who(folder: Path) -> tuple[str | None, str | None, str | None]:
    """Name, container and engine of a process."""
    name, groups = read(folder / "comm") or None, read(folder / "cgroup") or ""
    found = _CONTAINER.search(groups)
    if found is None:
        return name, None, None
    above = groups[: found.start()].rpartition("\n")[2]
    return name, found[0][:_DIGITS], _engine(above)


def _engine(above: str) -> str | None:
    """Who made the container, by the line of its control group up to its id."""
    if "/kubepods" in above:
        return "kubernetes"
    if _DOCKERS.fullmatch(above):
        return "docker"
    return next((engine for prefix, engine in _ENGINES.items() if above.endswith(prefix)), None)

"""How much memory is free for the page cache: of the host, and of our control group where it has a limit."""

from contextlib import suppress
from pathlib import Path

from nimctl.core.meminfo import host_memory

# In a container its own group is mounted here; elsewhere these are the root's, which has no limit.
_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**62  # version 1 writes the largest number of pages where there is no limit


def available(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that could be used now without pushing out what is in use; None where the kernel does not tell.

    Pages of files count as free, as the kernel drops them when it must.
    """
    rooms = [room for room in (host_memory(meminfo).available, _room(root)) if room is not None]
    return min(rooms) if rooms else None


def _room(root: Path) -> int | None:
    """What our group may still take: its limit less what it has, without the pages of files.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """
    for folder, limit, usage, prefix in (
        (root, "memory.max", "memory.current", ""),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < _UNLIMITED:
            files = _sum(folder / "memory.stat", (f"{prefix}inactive_file", f"{prefix}active_file"))
            return max(0, most - used + min(files, used))
    return None


def pressure(root: Path = _ROOT, host: Path = Path("/proc/pressure/memory")) -> float:
    """Percent of the last ten seconds in which something waited for memory; 0.0 where the kernel does not tell.

    https://docs.kernel.org/accounting/psi.html
    """
    for path in (root / "memory.pressure", host):
        with suppress(OSError, ValueError, IndexError):
            return float(path.read_text(encoding="ascii").split("avg10=")[1].split()[0])
    return 0.0


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        return int(path.read_text(encoding="ascii"))
    return None


def _sum(path: Path, keys: tuple[str, ...]) -> int:
    total = 0
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key in keys:
                total += int(value)
    return total

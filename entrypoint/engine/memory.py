"""How much memory is free for the page cache: of the host, and of our control group where it has a limit."""

from contextlib import suppress
from pathlib import Path

from nimctl.core.meminfo import host_memory

# In a container its own group is mounted here; elsewhere /proc/self/cgroup tells which one is ours.
_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNLIMITED = 2**62  # version 1 writes the largest number of pages where there is no limit


def available(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo"), membership: Path = _MEMBERSHIP) -> int | None:
    """Bytes that could be used now without pushing out what is in use; None where the kernel does not tell.

    Pages of files count as free, as the kernel drops them when it must.
    """
    rooms = [_room(folder, names) for folder, names in _groups(root, membership)]
    known = [room for room in (host_memory(meminfo).available, *rooms) if room is not None]
    return min(known) if known else None


# Limit, use, and the beginning of the names in memory.stat that count the whole group.
# https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
# https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_Names = tuple[str, str, str]
_SECOND: _Names = ("memory.max", "memory.current", "")
_FIRST: _Names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _groups(root: Path, membership: Path) -> list[tuple[Path, _Names]]:
    """The folders that may be our group's, of either version."""
    found = [(root, _SECOND), (root / "memory", _FIRST)]
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                found.append((root / group.lstrip("/"), _SECOND))
            elif "memory" in controllers.split(","):
                found.append((root / "memory" / group.lstrip("/"), _FIRST))
    return found


def _room(folder: Path, names: _Names) -> int | None:
    """What the group may still take: its limit less what it has, without the pages of files."""
    limit, usage, prefix = names
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None or most >= _UNLIMITED:
        return None
    files = _sum(folder / "memory.stat", (f"{prefix}inactive_file", f"{prefix}active_file"))
    return max(0, most - used + min(files, used))


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

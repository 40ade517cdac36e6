"""The kernel's count of processes that it killed for memory in our control group, of either version."""

from contextlib import suppress
from pathlib import Path

# In a container, its own group is mounted here; elsewhere /proc/self/cgroup tells which one is ours.
_ROOT = Path("/sys/fs/cgroup")


def oom_kills(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """How many processes of our group were killed for memory so far; 0 where the kernel does not tell.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files (memory.events, `oom_kill`)
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.oom_control, `oom_kill`)
    """
    for file in _candidates(root, membership):
        with suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def _candidates(root: Path, membership: Path) -> list[Path]:
    files: list[Path] = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                files.append(root / group.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                files.append(root / "memory" / group.lstrip("/") / "memory.oom_control")
    return [*files, root / "memory.events", root / "memory" / "memory.oom_control"]

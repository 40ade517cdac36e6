"""Limits on memory locks, files and processes."""

import re
from pathlib import Path

from nimctl.core.facts import LimitFacts
from nimctl.doctor.observe.files import cgroup_folders, number, read

_UNLIMITED = -1


def look_at_limits(root: Path = Path("/")) -> LimitFacts:
    """This process's limits, and the machine's below `root`."""
    text = read(root / "proc/self/limits") or ""
    open_files, open_files_hard = _limit(text, "Max open files")
    return LimitFacts(
        memlock=_limit(text, "Max locked memory")[0],
        open_files=open_files,
        open_files_hard=open_files_hard,
        processes=_limit(text, "Max processes")[0],
        pid_max=number(root / "proc/sys/kernel/pid_max"),
        threads_max=number(root / "proc/sys/kernel/threads-max"),
        cgroup_pids=_least_pids(root),
    )


def _limit(text: str, name: str) -> tuple[int | None, int | None]:
    """Soft and hard limit of one line of /proc/self/limits."""
    found = re.search(rf"^{name}\s+(\d+|unlimited)\s+(\d+|unlimited)\b", text, re.MULTILINE)
    if found is None:
        return None, None
    soft, hard = (_UNLIMITED if word == "unlimited" else int(word) for word in found.groups())
    return soft, hard


def _least_pids(root: Path) -> int | None:
    """The least of the limits of this process's control group and of those above it, all of which hold."""
    told = [limit for folder in cgroup_folders(root, "pids") if (limit := number(folder / "pids.max")) is not None]
    finite = [limit for limit in told if limit != _UNLIMITED]
    return min(finite) if finite else (_UNLIMITED if told else None)

"""The operating system: what it calls itself, its memory, and who asks."""

import grp
import os
import platform
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nimctl.core.facts import SystemFacts


def look_at_system(root: Path = Path("/")) -> SystemFacts:
    """The system below `root` (another root is for tests); processor and user are always this process's own."""
    release = _os_release(root)
    memory = _meminfo(root)
    kernel = _read(root / "proc/sys/kernel/osrelease") or platform.release() or None
    return SystemFacts(
        os_id=release.get("ID"),
        os_version=release.get("VERSION_ID"),
        os_name=release.get("PRETTY_NAME"),
        kernel=kernel,
        arch=platform.machine() or None,
        cpus=os.cpu_count(),
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        shm_total=_size_of(root / "dev/shm"),
        uid=os.getuid(),
        groups=tuple(sorted({_group_name(gid) for gid in (os.getgid(), *os.getgroups())})),
        wsl=None if kernel is None else "microsoft" in kernel.lower(),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _os_release(root: Path) -> Mapping[str, str]:
    # https://www.freedesktop.org/software/systemd/man/latest/os-release.html
    text = _read(root / "etc/os-release") or _read(root / "usr/lib/os-release")
    values = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            with suppress(ValueError):  # an unbalanced quote
                values[name.strip()] = " ".join(shlex.split(value))
    return values


def _meminfo(root: Path) -> Mapping[str, int]:
    sizes = {}
    for line in _read(root / "proc/meminfo").splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2] == "kB" and parts[1].isdigit():
            sizes[parts[0].rstrip(":")] = int(parts[1]) * 1024
    return sizes


def _size_of(mount: Path) -> int | None:
    try:
        found = os.statvfs(mount)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

"""Reading the small files in which a kernel tells about itself: what cannot be read is None, never an exception."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 65_536  # bytes; whatever a kernel tells of one thing is shorter


def read(path: Path, most: int = _LARGEST) -> str | None:
    """The first `most` bytes of a file, stripped; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", errors="replace").strip("\0 \t\r\n")
    except (OSError, ValueError):  # ValueError: a name that is none, such as one with a NUL
        return None


def regular(path: Path, most: int) -> str:
    """The whole text of a file that people write, such as a configuration.

    Raises OSError for what cannot be read, is no regular file (opening a pipe would wait for its writer), or has more
    than `most` bytes; ValueError for what is not UTF-8.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        text = file.read(most + 1)
    if len(text) > most:
        raise OSError(errno.EFBIG, "it is too large", str(path))
    return text.decode("utf-8")


def valid(name: str) -> str:
    """`name` as text that can be written anywhere: bytes of it that are not UTF-8 become escapes such as "\\udcff"."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def number(path: Path) -> int | None:
    """The count in a file; -1 for the word "max", with which control groups say that there is no limit."""
    text = read(path)
    if text == "max":
        return -1
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 20 else None


def names(folder: Path) -> tuple[str, ...] | None:
    """What lies in a folder, sorted; None where that cannot be listed."""
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir()))
    except OSError:
        return None


def is_there(path: Path) -> bool | None:
    """Whether a path exists; None where this user may not look."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return True


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The control groups of this process for `controller` (such as "pids"), itself first, as folders below `root`.

    Both hierarchies: one per controller (version 1), and the unified one (version 2).
    https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        parts = [part for part in group.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth])

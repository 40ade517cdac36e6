"""What a failed file operation in the cache means, in words: the only translator of OSError for cache and weights."""

import contextlib
import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Literal

from nimctl.core.errors import NimctlError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_GONE = (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENODEV)


def storage_error(error: OSError, path: Path) -> NimctlError:
    """The failed file operation `error` on the cache at `path` as an error with a cause and a way out."""
    what = f"the cache folder {path}"
    if error.errno in _FULL:
        kind = "quota" if error.errno == errno.EDQUOT else "filesystem"
        return NimctlError(
            "disk-full",
            f"{what} is full",
            cause=f"the {kind} refused a write ({error.strerror}); {free_bytes(path) / 2**20:.1f} MiB are free"
            + ("" if _inodes_left(path) else ", and no inodes"),
            fix=f"Free space there (`df -h {shlex.quote(str(path))}`) or name a folder on a larger disk with --cache.",
        )
    if error.errno in _GONE:
        return NimctlError(
            "cache-unreachable",
            f"{what} does not answer",
            cause=f"the filesystem below it failed: {error.strerror}",
            fix=f"Check the mount (`findmnt -T {shlex.quote(str(path))}`) or name another folder with --cache.",
        )
    return NimctlError("cache-not-writable", f"{what} cannot be written", cause=_why_not(error, path), fix=_fix(path))


def _why_not(error: OSError, path: Path) -> str:
    me = f"this process runs as {os.geteuid()}:{os.getegid()}"
    if error.errno == errno.EROFS:
        return f"it is mounted read-only; {me}"
    if not _answers(path, "exists"):
        return f"it does not exist, or its parent folder may not be entered; {me}"
    if not _answers(path, "is_dir"):
        return "it is not a folder"
    touched = Path(error.filename2 or error.filename or path)
    place = next((p for p in (touched, *touched.parents) if _answers(p, "is_dir")), path)
    found = place.stat()
    mode = stat.S_IMODE(found.st_mode)
    sticky = ", whose sticky bit keeps users from replacing each other's files" if mode & stat.S_ISVTX else ""
    described = f"{place} belongs to uid {found.st_uid}, group {found.st_gid}, mode {mode:04o}{sticky}"
    return f"{described}; {me} ({error.strerror})"


def _answers(path: Path, question: Literal["exists", "is_dir"]) -> bool:
    try:
        return path.exists() if question == "exists" else path.is_dir()
    except OSError:
        return False


def _fix(path: Path) -> str:
    folder = shlex.quote(str(path))
    user = "" if os.getegid() == 0 or 0 in os.getgroups() else "Run with group 0 (`--user UID:0`). "
    return (
        f"{user}On the host, for the folder that is mounted as {path}: `nimctl cache init DIR`, "
        f"or `sudo chgrp -R 0 {folder} && sudo chmod -R g+rwX,-t {folder}`."
    )


def _inodes_left(path: Path) -> bool:
    with contextlib.suppress(OSError):
        found = os.statvfs(path)
        return found.f_favail > 0 or found.f_files == 0  # none at all: a filesystem that does not count them
    return True


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write below `path`, or below its nearest existing parent; 0 when unknown."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            room = os.statvfs(place)
            return room.f_bavail * room.f_frsize
    return 0

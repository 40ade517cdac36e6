"""A writer's private folder in the cache, and the removal of those whose writer is gone.

A living writer holds a lock on its folder. On filesystems where locks are granted to everybody (some network mounts),
and for writers on other hosts, a lock proves nothing: there only age tells, measured with the filesystem's own clock.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from nimctl.core.cache import FILE_MODE, make_shared_folder

_PREFIX = ".incoming-"
_LOCK = ".lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in every container of one running host
_SURELY_DEAD = 24 * 3600.0  # seconds without a change


@contextlib.contextmanager
def incoming_folder(repo: Path) -> Iterator[Path]:
    """A fresh folder in `repo` for this writer alone, removed at the end; leftovers of dead writers are removed first.

    Raises OSError as the filesystem does.
    """
    own = repo / f"{_PREFIX}{secrets.token_hex(8)}"
    make_shared_folder(own)
    handle = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        if _lock(handle) and not _locks_are_worthless(own / _LOCK):
            os.write(handle, _BOOT_ID.read_bytes())
        now = own.stat().st_mtime
        for folder in repo.glob(f"{_PREFIX}*"):
            if folder != own and _abandoned(folder, now):
                shutil.rmtree(folder, ignore_errors=True)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(handle)


def _lock(handle: int, flags: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, flags)
    except OSError:
        return False
    return True


def _locks_are_worthless(lock: Path) -> bool:
    """True when a second holder is let in beside the first."""
    second = os.open(lock, os.O_RDWR)
    try:
        return _lock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(second)


def _abandoned(folder: Path, now: float) -> bool:
    """True when the writer of `folder` is surely gone; `now` is this filesystem's time in seconds."""
    try:
        newest = max(p.lstat().st_mtime for p in (folder, *folder.rglob("*")))
        handle = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return folder.is_dir() and now - folder.lstat().st_mtime > _SURELY_DEAD
    except OSError:
        return False
    try:
        free = _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.read(handle, 64) == _BOOT_ID.read_bytes()
        return free and (ours or now - newest > _SURELY_DEAD)
    finally:
        os.close(handle)

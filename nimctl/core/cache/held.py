"""Compile caches that a living server uses: held by a lock, so that nobody prunes them from under it.

A server holds its folder shared for as long as it lives, whatever ends it; who removes one must hold it alone. Where
the filesystem has no locks every folder counts as held. https://man7.org/linux/man-pages/man2/flock.2.html
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from nimctl.core.cache.paths import PRIVATE_MODE, open_shared

LOCK = ".in-use"  # its modification time is when the cache was last taken into use
# Somebody who looks, or prunes, has it alone for an instant: that is no filesystem without locks.
_PATIENCE = 0.5
_PAUSE = 0.005


class Hold:
    """A folder held until `release` or the end of the process; `alone` tells whether nobody else held it then."""

    def __init__(self, handle: int | None, *, alone: bool) -> None:
        self._handle = handle
        self.alone = alone

    def release(self) -> None:
        """Let go of it. May be called again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def hold(folder: Path) -> Hold:
    """Hold `folder` shared with other servers, and make it where a prune has just taken it away.

    Without locks, or where somebody has it alone for longer than an instant, nothing is held, and nobody is alone.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.mkdir(mode=PRIVATE_MODE, exist_ok=True)
            handle = open_shared(folder / LOCK, os.O_RDWR)
        except OSError:
            break
        with contextlib.suppress(OSError):
            os.utime(handle)
        alone = _lock(handle, fcntl.LOCK_EX)
        # Turns the one into the other, where there was one. Between the two another may take it: then we try both anew.
        shared = _lock(handle, fcntl.LOCK_SH)
        if shared and _is_at(handle, folder / LOCK):
            return Hold(handle, alone=bool(alone))
        os.close(handle)
        if shared is None or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    return Hold(None, alone=False)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether `folder` is held by nobody else; while it is, no server takes it into use. Never waits."""
    try:
        handle = open_shared(folder / LOCK, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        yield bool(_lock(handle, fcntl.LOCK_EX))
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a server uses `folder` now; False where nobody ever did, or this user may not know."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def remove(folder: Path) -> bool:
    """Remove a compile cache that nobody uses; False where somebody does or it cannot be removed.

    It is renamed first, so that a server that starts meanwhile makes a new one and never loads half of the old.
    """
    with alone(folder) as free:
        if not free:
            return False
        grave = folder.with_name(f".{folder.name}.removed-{os.getpid()}")
        try:
            folder.rename(grave)
        except OSError:
            return False
    shutil.rmtree(grave, ignore_errors=True)
    return not grave.exists()


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _lock(handle: int, kind: int) -> bool | None:
    """Whether we have the lock now; None where the filesystem has none."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True

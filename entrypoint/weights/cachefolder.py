"""The cache folder as the container finds it: writable, or read-only and good enough, or refused."""

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.weights.checkpoint import lies_ready
from nimctl.core.cache import PRIVATE_MODE, probe_writable
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import ANONYMOUS, Access


def probe(uris: Sequence[str], cache: Path, timeout: float, access: Access = ANONYMOUS) -> str | None:
    """Refuse a cache that is dead or full, and one that is read-only while nothing of `uris` lies ready to be served.

    None where it can be written, else why it cannot. Raises `cache-not-writable`, `disk-full`, `cache-unreachable`.
    """
    try:
        probe_writable(cache, timeout)
    except NimctlError as error:
        if error.id != "cache-not-writable" or not cache.is_dir():
            raise
        if not any(lies_ready(uri, cache, access) for uri in uris):
            raise
        return error.cause
    return None


@dataclass(frozen=True)
class Substitute:
    """Where compiled code goes when the cache cannot take it; `executable` says whether it can be loaded from there."""

    folder: Path
    executable: bool


def substitute(candidates: tuple[Path, ...]) -> Substitute:
    """A folder of this user's own in the first candidate that takes one, those on a `noexec` mount last.

    Raises `cache-not-writable` where there is none.
    """
    for executable in (True, False):
        for place in candidates:
            with contextlib.suppress(OSError):
                if bool(os.statvfs(place).f_flag & os.ST_NOEXEC) == executable:
                    continue
                folder = place / f"nimctl-engine-{os.geteuid()}"
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=PRIVATE_MODE)
                if _is_private(folder):
                    return Substitute(folder, executable)
    shown = ", ".join(shlex.quote(str(place)) for place in candidates)
    raise NimctlError(
        "cache-not-writable",
        "there is no place for the engine's compile caches",
        cause=f"the cache is read-only, and no folder of this user's own can be made in {shown}",
        fix="Mount a writable /tmp (--tmpfs /tmp:exec), or the cache writable.",
    )


def _is_private(folder: Path) -> bool:
    """Whether nobody else can put code there: it would be loaded unchecked."""
    found = folder.lstat()
    mine = found.st_uid == os.geteuid() and not folder.is_symlink() and folder.is_dir()
    return mine and not found.st_mode & 0o077 and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)

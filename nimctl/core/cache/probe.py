"""The proof that this process can write in the cache, before anything depends on it."""

import os
import queue
import secrets
import shlex
import threading
from pathlib import Path

from nimctl.core.cache.paths import FILE_MODE, CachePaths
from nimctl.core.cache.problems import storage_error
from nimctl.core.errors import NimctlError

# One filesystem block: smaller writes can succeed on a full disk, inside the inode or the last block.
_PROBE = b"\0" * 4096


def probe_writable(root: Path, timeout: float = 5.0) -> None:
    """Prove that this process can write in the cache: a small file is made, written, synced and removed.

    Tried in `root` and in the shared folders below it that exist, for at most `timeout` seconds in all, because a dead
    network mount never answers. Raises `cache-not-writable`, `disk-full`, `cache-unreachable`.
    """
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    threading.Thread(target=_probe, args=(root, outcome), name="cache-probe", daemon=True).start()
    try:
        failure = outcome.get(timeout=timeout)
    except queue.Empty:
        raise NimctlError(
            "cache-unreachable",
            f"the cache folder {root} did not answer within {timeout:g} s",
            cause="the filesystem below it hangs, as a network mount does whose server is gone",
            fix=f"Check the mount (`findmnt -T {shlex.quote(str(root))}`) or name another folder with --cache.",
        ) from None
    if failure is not None:
        raise failure


def _probe(root: Path, outcome: "queue.SimpleQueue[BaseException | None]") -> None:
    folder = root
    try:
        for folder in (root, *(f for f in (CachePaths(root).hub, CachePaths(root).engine) if f.is_dir())):
            _write_probe(folder)
    except OSError as error:
        outcome.put(storage_error(error, folder))
    except BaseException as error:  # handed to the waiting thread
        outcome.put(error)
    else:
        outcome.put(None)


def _write_probe(folder: Path) -> None:
    path = folder / f".nimctl-probe-{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.write(handle, _PROBE)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink()

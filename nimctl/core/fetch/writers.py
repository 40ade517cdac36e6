"""Who writes in a repository of the cache: a folder for each writer, and what becomes of it when the writer dies.

    .partial/.turn                 the lock that lets one process fetch while others wait; it only saves bandwidth
    .partial/<writer>/.writer      the boot id of its host
    .partial/<writer>/.lock        locked while it lives
    .partial/<writer>/.heartbeat   a counter that grows every two seconds
    .partial/<writer>/<key>.*      its partial files; see `partial`

A dead writer's folder is claimed by renaming it, which one process wins on every filesystem. A writer is dead when its
lock is free, if locks mean something here and it ran on this host; otherwise when its counter stands still. Clocks are
not compared: they differ between hosts. A writer that was taken for dead and wakes up finds its folder gone and stops.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nimctl.core.cache import RepoPaths, make_shared_folder, open_shared
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.transfer.partial import boot_id

BEAT = 2.0  # seconds between two counts
_STILL = 5 * BEAT  # seconds without a count that mean death
_HUNG = 60.0  # seconds without a count after which even a locked turn is no longer waited for
_POLL = 0.5
_TURN = ".turn"
_COUNT = b"%012d"
_LOCK, _WRITER, _HEARTBEAT = ".lock", ".writer", ".heartbeat"


class Writer:
    """This process's own `folder`, alive until `close`."""

    def __init__(self, folder: Path, lock: int | None = None) -> None:
        """`lock` is a descriptor of the folder's lock, if this process holds it already. Raises OSError."""
        self.folder = folder
        self.lost = False  # claimed by somebody who took this process for dead
        self._ended = threading.Event()
        self._lock = open_shared(folder / _LOCK, os.O_RDWR) if lock is None else lock
        deadline = time.monotonic() + _STILL
        while not _try_lock(self._lock) and time.monotonic() < deadline:
            time.sleep(0.01)  # somebody looks whether it is free, and lets go of it at once
        _write(folder / _WRITER, boot_id())
        self._count = secrets.randbelow(2**32)  # not where the dead writer of a claimed folder stopped
        _write(folder / _HEARTBEAT, (_COUNT % self._count).decode())
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._beating.start()

    @property
    def is_lost(self) -> bool:
        """Whether somebody who took this process for dead has its folder now."""
        self.lost = self.lost or not self.folder.exists()
        return self.lost

    def close(self) -> None:
        """Stop the heart and free the lock; the folder stays, for whoever goes on, unless it holds no partial file."""
        self._ended.set()
        self._beating.join()
        if not self.lost:
            with contextlib.suppress(OSError):
                if all(name.startswith(".") for name in os.listdir(self.folder)):  # noqa: PTH208
                    shutil.rmtree(self.folder)
        os.close(self._lock)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._count += 1
            try:
                handle = os.open(self.folder / _HEARTBEAT, os.O_WRONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                self.lost = True
                return
            except OSError:
                continue  # a full disk or a slow mount is no reason to die
            with contextlib.suppress(OSError):
                os.write(handle, _COUNT % self._count)  # over the old one: a full disk has room for that
            os.close(handle)


@contextlib.contextmanager
def writer(repo: RepoPaths, root: Path, stop: Stop, on_wait: Callable[[str], None]) -> Iterator[Writer]:
    """A folder for this writer in `repo`, with the partial files of writers that died. Raises OSError."""
    make_shared_folder(repo.partial, root)
    own, lock = repo.partial / f"w-{secrets.token_hex(8)}", None
    for folder, held in _dead_writers(repo.partial, stop, on_wait):
        first = not own.exists()
        try:
            folder.rename(own if first else own / f"claimed-{secrets.token_hex(4)}")
        except OSError:  # somebody else won it
            first = False
        if first:
            lock = held
        else:
            _close(held)
    make_shared_folder(own, root)
    for nested in [entry for entry in own.iterdir() if entry.is_dir()]:
        _merge(nested, own)  # what was claimed beside it, a claim that was cut off, or what a generator had made
    me = Writer(own, lock)
    try:
        yield me
    finally:
        me.close()


@contextlib.contextmanager
def turn(
    repo: RepoPaths, root: Path, stop: Stop, *, settled: Callable[[], bool], on_wait: Callable[[str], None]
) -> Iterator[None]:
    """Wait until no other process fetches into `repo`, or until `settled()`: it may have fetched what is wanted.

    Where locks mean nothing, and where the holder hangs, it goes on at once or after a minute: that costs bandwidth,
    never content. Raises OSError.
    """
    make_shared_folder(repo.partial, root)
    handle = open_shared(repo.partial / _TURN, os.O_RDWR)
    try:
        counts, since = _counts(repo.partial), time.monotonic()
        while not _try_lock(handle) and not settled():
            on_wait("another process is fetching into the same repository")
            if stop.pause(_POLL):
                break
            if (now := _counts(repo.partial)) != counts:
                counts, since = now, time.monotonic()
            if time.monotonic() - since > _HUNG:
                break
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def turn_if_free(repo: RepoPaths, root: Path) -> Iterator[bool]:
    """Whether nobody fetches into `repo` as far as locks tell; if so, nobody begins until the block ends.

    Raises OSError.
    """
    make_shared_folder(repo.partial, root)
    handle = open_shared(repo.partial / _TURN, os.O_RDWR)
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def conditions(partial: Path) -> dict[Path, str]:
    """Every writer's folder: `alive`, `dead`, or `unsure` where locks do not tell. For listing, not for claiming."""
    found = {}
    for folder in _folders(partial):
        found[folder], held = _judge(folder)
        _close(held)
    return found


def is_locked(lock: Path) -> bool | None:
    """Whether some process holds the lock file `lock`, which may be another program's; None where it cannot be told."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        if not _try_lock(handle):
            return True
        return False if _locks_mean_something(lock) else None
    except OSError:
        return None
    finally:
        os.close(handle)


def _dead_writers(partial: Path, stop: Stop, on_wait: Callable[[str], None]) -> list[tuple[Path, int | None]]:
    """The folders of dead writers, with a descriptor that holds the lock of each where locks tell."""
    dead: list[tuple[Path, int | None]] = []
    unsure: dict[Path, str] = {}
    for folder in _folders(partial):
        verdict, held = _judge(folder)
        if verdict == "dead":
            dead.append((folder, held))
        elif verdict == "unsure":
            unsure[folder] = _count(folder)
    deadline = time.monotonic() + _STILL
    while unsure and time.monotonic() < deadline and not stop.is_set:
        on_wait("watching whether another writer is alive")
        stop.pause(_POLL)
        unsure = {folder: count for folder, count in unsure.items() if _count(folder) == count}
    return dead + [(folder, None) for folder in unsure if not stop.is_set]


def _judge(folder: Path) -> tuple[str, int | None]:
    """`alive` or `dead` by the lock where that is sure, `unsure` where only the heartbeat can tell.

    The lock of a dead one is handed over, held, so that nobody else takes the folder for dead once it is claimed.
    """
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return "unsure", None  # still being made, or left by a crash in that moment
    verdict = "unsure"
    try:
        if not _try_lock(handle):
            verdict = "alive"
        elif (folder / _WRITER).read_text(encoding="ascii").strip() == boot_id():
            verdict = "dead" if _locks_mean_something(folder / _LOCK) else "unsure"
    except (OSError, ValueError):
        verdict = "unsure"
    if verdict == "dead":
        return verdict, handle
    os.close(handle)
    return verdict, None


def _merge(claimed: Path, own: Path) -> None:
    """Move the partial files of `claimed` up into `own`; of two of one file the one with the longer journal stays."""
    for journal in sorted(claimed.rglob("*.journal")):
        data = journal.with_suffix(".data")
        there = own / journal.name
        if data.exists() and (not there.exists() or there.stat().st_size < journal.stat().st_size):
            there.unlink(missing_ok=True)  # first, so that no journal ever describes another file's bytes
            data.rename(there.with_suffix(".data"))
            journal.rename(there)
    shutil.rmtree(claimed, ignore_errors=True)


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _folders(partial: Path) -> list[Path]:
    try:
        return sorted(entry for entry in partial.iterdir() if entry.name.startswith("w-") and entry.is_dir())
    except OSError:
        return []


def _counts(partial: Path) -> dict[Path, str]:
    return {folder: _count(folder) for folder in _folders(partial)}


def _count(folder: Path) -> str:
    try:
        return (folder / _HEARTBEAT).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _try_lock(handle: int) -> bool:
    """Take the lock; True as well where the filesystem knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _locks_mean_something(lock: Path) -> bool:
    """Whether a second holder is kept out, asked while the first holds it."""
    second = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not _try_lock(second)
    finally:
        os.close(second)


def _write(path: Path, text: str) -> None:
    """Write anew: the file of a dead writer may belong to another user."""
    fresh = path.with_name(path.name + ".fresh")
    fresh.unlink(missing_ok=True)
    handle = open_shared(fresh, os.O_WRONLY)
    os.write(handle, text.encode("ascii"))
    os.close(handle)
    fresh.replace(path)

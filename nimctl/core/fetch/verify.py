"""Hashing files side by side, at the speed of the disk or of the cores, whichever ends first.

What the page cache holds is read from there; the rest goes around it (O_DIRECT). So a check of 600 GB costs nobody
else on the host his cached files, and what it compares is what the disk gives now. Measured on two cores and a
virtual disk with four files of 512 MiB against `sha256sum`: docs/decisions/0009-host-side-of-weights.md.
"""

import errno
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.transfer.blocks import BLOCK, aligned, new_buffer

_MOST_THREADS = 16  # one core hashes 0.9 to 1.7 GB/s; sixteen are beyond the disks of any one machine
_THREADS_A_CORE = 2  # one waits for the disk while the other hashes
_STOP_NOTICED = 0.2  # seconds: how long a disk that does not answer hides a stop

Condition = Literal["right", "unhashed", "missing", "unreadable", "wrong-size", "wrong-digest"]


@dataclass(frozen=True)
class Verdict:
    """What was found at `path`, where `file` should be. `unhashed` has the right size, and no digest is known for it.

    `found` is the digest, the size or the refusal that was met.
    """

    path: Path
    file: File
    condition: Condition
    found: str | None = None

    @property
    def bad(self) -> bool:
        """Whether the file cannot be used."""
        return self.condition not in ("right", "unhashed")


def wrong_files(
    items: Sequence[tuple[Path, File]], *, on_bytes: Callable[[int, File], None], stop: Stop, threads: int | None = None
) -> list[File]:
    """Those of `items` that were not found to have the size and digest that they should have, in the order given.

    As `judge`, for whoever needs no reason. What was not looked at, because it was stopped, counts as wrong.
    """
    verdicts = judge(items, on_bytes=on_bytes, stop=stop, threads=threads)
    good = {(verdict.path, verdict.file) for verdict in verdicts if not verdict.bad}
    return [file for path, file in items if (path, file) not in good]


def judge(
    items: Sequence[tuple[Path, File]], *, on_bytes: Callable[[int, File], None], stop: Stop, threads: int | None = None
) -> list[Verdict]:
    """A verdict on each of `items`, in the order given; fewer only when stopped, then without waiting for the disk.

    A file without a known digest is not read, only its size is compared. `on_bytes(bytes read of the file, file)` is
    called from this thread. What ends a thread early, such as MemoryError, is raised here.
    """
    bench = _Bench(items, stop)
    count = min(len(items), threads or min(_MOST_THREADS, _THREADS_A_CORE * (os.cpu_count() or 1)))
    workers = [threading.Thread(target=bench.work, name=f"verify-{n}", daemon=True) for n in range(count)]
    running = count
    try:
        for worker in workers:
            worker.start()
        while running and not stop.is_set:
            try:
                told = bench.reports.get(timeout=_STOP_NOTICED)
            except queue.Empty:
                continue
            if isinstance(told, BaseException):
                raise told
            if told is None:
                running -= 1
            else:
                on_bytes(told[1], items[told[0]][1])
    finally:
        bench.abandoned.set()
    verdicts = bench.so_far()
    if len(verdicts) < len(items) and not stop.is_set:
        raise RuntimeError(f"{len(items) - len(verdicts)} of {len(items)} files got no verdict")
    return verdicts


class _Bench:
    """What the threads of one check share: the files that wait, what is told of them, and the verdicts.

    `reports` holds (index, bytes read), the exception that ended a thread, and None for every thread that has ended.
    """

    def __init__(self, items: Sequence[tuple[Path, File]], stop: Stop) -> None:
        self._items = items
        self._stop = stop
        # the longest first, so that the end is not one lonely thread
        self._waiting = sorted(range(len(items)), key=lambda index: items[index][1].size)
        self._verdicts: dict[int, Verdict] = {}
        self._lock = threading.Lock()
        self.reports: queue.SimpleQueue[tuple[int, int] | BaseException | None] = queue.SimpleQueue()
        self.abandoned = threading.Event()

    def work(self) -> None:
        """Judge one file after the other until none waits; for a thread of its own."""
        try:
            buffer = new_buffer()
            while not self._over() and (index := self._next()) is not None:
                path, file = self._items[index]
                verdict = _judge(path, file, buffer, partial(self._tell, index), self._over)
                if verdict is not None:
                    with self._lock:
                        self._verdicts[index] = verdict
        except BaseException as error:  # the caller raises it: a file without a verdict must not pass for a right one
            self.reports.put(error)
        finally:
            self.reports.put(None)

    def so_far(self) -> list[Verdict]:
        """The verdicts that there are, in the order of the items."""
        with self._lock:
            return [self._verdicts[index] for index in sorted(self._verdicts)]

    def _next(self) -> int | None:
        with self._lock:
            return self._waiting.pop() if self._waiting else None

    def _tell(self, index: int, done: int) -> None:
        self.reports.put((index, done))

    def _over(self) -> bool:
        return self._stop.is_set or self.abandoned.is_set()


def _judge(
    path: Path, file: File, buffer: memoryview, on_bytes: Callable[[int], None], over: Callable[[], bool]
) -> Verdict | None:
    """The verdict on one file; None when nobody wants it any more."""
    expected = file.expected
    try:
        size = path.stat().st_size
        if size != file.size:
            return Verdict(path, file, "wrong-size", str(size))
        if expected is None:
            with path.open("rb"):  # it can be read, and nothing more is known
                return Verdict(path, file, "unhashed")
        hasher = expected.hasher(file.size)
        with _Content(path, file.size) as content:
            for offset in range(0, file.size, BLOCK):
                length = min(BLOCK, file.size - offset)
                content.read(offset, buffer, length)
                hasher.update(buffer[:length])
                on_bytes(offset + length)
                if over():
                    return None
    except FileNotFoundError:
        return Verdict(path, file, "missing")
    except OSError as error:
        return Verdict(path, file, "unreadable", error.strerror or type(error).__name__)
    found = hasher.hexdigest()
    return Verdict(path, file, "right" if found == expected.hex else "wrong-digest", f"{expected.algorithm}:{found}")


class _Content:
    """A file of `size` bytes to be read once by blocks, leaving the page cache as it is. Raises OSError."""

    def __init__(self, path: Path, size: int) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._direct: int | None = None
        self._peeks = True  # whether the kernel tells what is cached
        if size >= BLOCK:
            try:
                self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            except OSError:  # tmpfs and some network mounts know no direct reading
                self._direct = None

    def __enter__(self) -> "_Content":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        if self._direct is not None:
            os.close(self._direct)

    def read(self, offset: int, buffer: memoryview, length: int) -> None:
        """Fill the start of `buffer`, a whole one, with the `length` bytes at `offset`."""
        if self._from_cache(offset, buffer, length):
            return
        if self._direct is not None:
            try:
                _read(self._direct, offset, buffer, length, aligned(length))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                os.close(self._direct)
                self._direct = None
            else:
                return
        _read(self._handle, offset, buffer, length, length)
        os.posix_fadvise(self._handle, offset, length, os.POSIX_FADV_DONTNEED)

    def _from_cache(self, offset: int, buffer: memoryview, length: int) -> bool:
        if not self._peeks:
            return False
        try:
            return os.preadv(self._handle, [buffer[:length]], offset, os.RWF_NOWAIT) == length
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._peeks = False
            return False


def _read(handle: int, offset: int, buffer: memoryview, length: int, wanted: int) -> None:
    count = os.preadv(handle, [buffer[:wanted]], offset)
    while count < length and (more := os.preadv(handle, [buffer[count:wanted]], offset + count)):
        count += more
    if count < length:
        raise OSError(errno.EIO, "the file is shorter than it was")

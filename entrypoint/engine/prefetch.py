"""Reads the weights into the page cache while the engine still imports Python, and stops when that helps nobody."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine import memory
from entrypoint.engine.strategy import LoadPlan

_WINDOW = 16 * 2**20  # bytes at a time: large enough for any storage, small enough to stop at once
_LOOK_SECONDS = 0.5  # how often memory is looked at
_PRESSURE = 10.0  # percent of time that something waits for memory: reading on would push out what is needed
_RESERVE = 0.05  # of what was available at the beginning stays free
_SAMPLES = 256
_PAGE = 4096


@dataclass(frozen=True)
class File:
    """One file of weights and its size in bytes."""

    path: Path
    size: int


def files_of(snapshot: Path) -> tuple[File, ...]:
    """The weights in a checkpoint's folder, in the order in which vLLM loads them (by name)."""
    found = []
    with suppress(OSError):
        for path in sorted(snapshot.glob("*.safetensors")):
            with suppress(OSError):
                found.append(File(path, path.stat().st_size))
    return tuple(found)


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of filesystem that `path` is on, such as `ext4` or `nfs4`; `unknown` where the kernel does not tell.

    https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    with suppress(OSError):
        device = path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == number and after:
                return after.split()[0]
    return "unknown"


def resident(files: Sequence[File]) -> float | None:
    """The share of `files` that is in the page cache, from a few hundred probes; None where that cannot be asked.

    A read that must not wait (RWF_NOWAIT) fails for what is not there. `mincore` would tell only the files' owner.
    https://man7.org/linux/man-pages/man2/readv.2.html
    """
    total, there, probes = sum(f.size for f in files), 0, 0
    step = max(_PAGE, total // _SAMPLES)
    buffer = bytearray(1)
    for file in files:
        try:
            handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            for offset in range(min(step // 2, file.size // 2), file.size, step):
                probes += 1
                try:
                    there += os.preadv(handle, [buffer], offset, os.RWF_NOWAIT)
                except BlockingIOError:
                    continue
                except OSError:  # a filesystem that cannot do it
                    return None
        finally:
            os.close(handle)
    return there / probes if probes else None


class Prefetch:
    """The threads that read ahead; `close` ends them within one window.

    `tell` gets one line at the end, `on_progress` the bytes until then, twice a second.
    """

    def __init__(
        self,
        files: Sequence[File],
        plan: LoadPlan,
        *,
        tell: Callable[[str], None],
        on_progress: Callable[[int], None] = lambda _: None,
        available: Callable[[], int | None] = memory.available,
        pressure: Callable[[], float] = memory.pressure,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._tell, self._clock = plan, tell, clock
        self._available, self._pressure, self._on_progress = available, pressure, on_progress
        self._windows = _windows(files, plan.limit)
        self._lock = threading.Lock()
        self._done = 0
        self._why: str | None = None
        self._left = plan.threads
        self._began = self._looked = clock()
        self._least = int((available() or 0) * _RESERVE)
        self._threads = [
            threading.Thread(target=self._work, name="read-ahead", daemon=True) for _ in range(plan.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def bytes(self) -> int:
        """How much has been read, or asked for, until now."""
        return self._done

    def close(self, why: str) -> None:
        """Stop, because of `why`, if it is not over. Does not wait."""
        with self._lock:
            self._why = self._why or why

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # the engine's imports come first
        buffer = bytearray(_WINDOW) if self._plan.reads else bytearray()
        while (window := self._next()) is not None:
            path, offset, length = window
            try:
                _ahead(path, offset, length, buffer)
            except OSError as error:
                self.close(f"{path.name}: {error.strerror or error}")
                break
            with self._lock:
                self._done += length
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._say()

    def _next(self) -> tuple[Path, int, int] | None:
        with self._lock:
            if self._why is None and self._clock() - self._looked >= _LOOK_SECONDS:
                self._looked = self._clock()
                self._why = self._memory_is_short()
                self._on_progress(self._done)
            return None if self._why is not None else next(self._windows, None)

    def _memory_is_short(self) -> str | None:
        free, waiting = self._available(), self._pressure()
        if free is not None and free < self._least:
            return f"only {free / 1e9:.1f} GB of memory are left"
        return f"programs wait for memory {waiting:.0f} % of the time" if waiting > _PRESSURE else None

    def _say(self) -> None:
        seconds = max(self._clock() - self._began, 1e-3)
        ended = f", stopped: {self._why}" if self._why else ""
        what = "read" if self._plan.reads else "asked for"  # the kernel goes on with what it was asked for
        rate = self._done / 1e9 / seconds
        self._tell(f"{what} {self._done / 1e9:.1f} GB ahead in {seconds:.1f} s ({rate:.1f} GB/s){ended}")


def _windows(files: Sequence[File], limit: int) -> Iterator[tuple[Path, int, int]]:
    """Pieces of the files in their order, `limit` bytes in all."""
    for file in files:
        for offset in range(0, file.size, _WINDOW):
            length = min(_WINDOW, file.size - offset, limit)
            if length <= 0:
                return
            limit -= length
            yield file.path, offset, length


def _ahead(path: Path, offset: int, length: int, buffer: bytearray) -> None:
    """Bring a piece of a file into the page cache: with a buffer by reading it, else by asking the kernel to.

    Asking costs no copy. Over a network the kernel asks for little at a time, and for nothing on some filesystems.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not buffer:
            os.posix_fadvise(handle, offset, length, os.POSIX_FADV_WILLNEED)
            return
        view = memoryview(buffer)[:length]
        while view and (count := os.preadv(handle, [view], offset)):
            view, offset = view[count:], offset + count
    finally:
        os.close(handle)

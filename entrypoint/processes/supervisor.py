"""PID 1: starts children, reaps everything, turns signals and deaths into events, and stops what it started.

The main thread sits in `next_event`; the start runs in another thread, so that a signal is answered at once whatever
the start is doing: a download, a dead network mount, an engine that loads for ten minutes.
"""

import ctypes
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.group import Over
from entrypoint.observability.lines import Line
from entrypoint.processes.child import Child, descendants, start
from entrypoint.processes.oom import oom_kills
from nimctl.core.errors import NimctlError

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Stop:
    """Somebody asked us to stop, with this signal."""

    signal: int


@dataclass(frozen=True)
class Died:
    """A child of ours ended, whatever its exit code."""

    child: Child


@dataclass(frozen=True)
class Finished:
    """A start, the `number`-th, came to its end: all done, or with this exception."""

    error: BaseException | None
    number: int = 1


@dataclass(frozen=True)
class Sick:
    """The engine of the `number`-th start runs, and does not do its work."""

    error: NimctlError
    number: int


class Moot(Exception):  # noqa: N818 (nothing went wrong: what ended the engine is told by somebody else)
    """A start has nothing more to wait for: its engine is gone, or nobody wants it any more."""


Event = Stop | Died | Finished | Sick | Over


class Supervisor:
    """Owns the signals and the children of this process. Only one may exist; it must be made in the main thread."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._events: deque[Event] = deque()
        self._lock = threading.RLock()
        self._closed = False
        self._on_close: list[Callable[[], None]] = []
        self._start: threading.Thread | None = None
        self._closing = threading.Event()
        self.starts = 0
        self.oom_kills_before = oom_kills()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if os.getpid() != 1:
            # Without this, a grandchild whose parent died would become the child of somebody who does not know us.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # The handlers do nothing: the number of the signal arrives in the pipe, even while a thread is busy.
        for number in (*_STOPS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def spawn(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: Callable[[Line], None]
    ) -> Child:
        """Start a child; its death will be an event. Raises `engine-missing` or `front-missing`.

        From any thread. Once `close` was called nothing is started any more: the caller waits for the end.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the supervisor is stopping")
            child = start(name, argv, env=env, cwd=cwd, on_line=on_line)
            self._children[child.pid] = child
            return child

    def run_start(self, function: Callable[[], None]) -> None:
        """Run a start beside the main thread; its end will be an event. The one before must have ended."""
        self.starts += 1
        number = self.starts

        def body() -> None:
            error: BaseException | None = None
            try:
                function()
            except BaseException as caught:
                error = caught
            with self._lock:
                self._on_close.clear()  # what it began is over with it
            self.post(Finished(error, number))

        self._start = threading.Thread(target=body, name="start", daemon=True)
        self._start.start()

    def await_start(self, timeout: float) -> bool:
        """Wait for the end of the start; False where it does not end in time, or somebody has asked us to stop."""
        deadline = time.monotonic() + timeout
        while self._start is not None and self._start.is_alive():
            if time.monotonic() >= deadline or self.stop_is_wanted():
                return False
            self._start.join(0.05)
        return True

    def stop_is_wanted(self) -> bool:
        """Whether a request to stop waits to be answered. Main thread only."""
        self._read_signals()
        with self._lock:
            return any(isinstance(event, Stop) for event in self._events)

    def await_death(self, candidates: Sequence[Child], seconds: float) -> Child | Event | None:
        """The first of these children that dies within `seconds`, or None. Main thread only.

        What ends the server otherwise (a signal, the end of a group) is returned at once, and stays the next event.
        """
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            event = self.next_event(remaining)
            if isinstance(event, Died):
                if event.child in candidates:
                    return event.child
            elif event is not None and not isinstance(event, (Finished, Sick)):
                with self._lock:
                    self._events.appendleft(event)
                return event
        return None

    def next_event(self, timeout: float) -> Event | None:
        """The next event, or None after `timeout` seconds. Main thread only."""
        deadline = time.monotonic() + timeout
        while True:
            self._reap()
            with self._lock:
                if self._events:
                    return self._events.popleft()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            select.select([self._wake_read], [], [], remaining)
            self._read_signals()

    def close(self) -> None:
        """Start nothing any more, and tell those who asked with `on_close`."""
        with self._lock:
            self._closed = True
            self._closing.set()
            told, self._on_close = self._on_close, []
        for tell in told:
            tell()

    def on_close(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when we are stopping before this start has ended; at once where we are already."""
        with self._lock:
            if not self._closed:
                self._on_close.append(tell)
                return
        tell()

    def wait_closed(self, seconds: float) -> bool:
        """True once we are stopping; False after `seconds` without that."""
        return self._closing.wait(seconds)

    @property
    def closed(self) -> bool:
        """True once we are stopping."""
        return self._closed

    def living(self) -> tuple[Child, ...]:
        """The children that have not ended."""
        with self._lock:
            return tuple(c for c in self._children.values() if c.exit is None)

    def find(self, name: str) -> Child | None:
        """The living child of that name."""
        return next((c for c in self.living() if c.name == name), None)

    def end(self, child: Child, number: int, deadline: float) -> bool:
        """Send a signal and wait until `deadline` (monotonic) for the end; False when time or patience runs out.

        A stop signal that arrives meanwhile ends the patience: it stays in the queue.
        """
        child.signal(number)
        while child.exit is None and time.monotonic() < deadline:
            event = self.next_event(min(0.05, max(0.0, deadline - time.monotonic())))
            if isinstance(event, Stop):
                self._events.appendleft(event)
                return False
        return child.exit is not None

    def kill_all(self, timeout: float = 2.0) -> None:
        """Kill everything below us, grandchildren that were left behind included, and reap it."""
        self.close()
        self._kill((), timeout)

    def kill_others(self, keep: Sequence[int], timeout: float = 10.0) -> None:
        """Kill everything below us but the processes in `keep` and what is below them, and reap it.

        Returns early where somebody asks us to stop: that kills what is left.
        """
        self._kill(keep, timeout, patient=False)

    def _kill(self, keep: Sequence[int], timeout: float, *, patient: bool = True) -> None:
        deadline = time.monotonic() + timeout
        for child in self.living():
            if child.pid not in keep:
                child.signal_group(signal.SIGKILL)
        while (left := self._below(keep)) and time.monotonic() < deadline and (patient or not self.stop_is_wanted()):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._reap()
            time.sleep(0.01)
        self._reap()

    @staticmethod
    def _below(keep: Sequence[int]) -> set[int]:
        kept = {*keep, *(pid for root in keep for pid in descendants(root))}
        return set(descendants(os.getpid())) - kept

    def post(self, event: Event) -> None:
        """Have `next_event` return this; from any thread."""
        with self._lock:
            self._events.append(event)
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # a full pipe wakes as well

    def _read_signals(self) -> None:
        try:
            numbers = os.read(self._wake_read, 4096)
        except BlockingIOError:
            return
        with self._lock:
            self._events.extend(Stop(number) for number in numbers if number in _STOPS)

    def _reap(self) -> None:
        """Take every process that has ended: ours become events, orphans that we inherited are just laid to rest."""
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                child = self._children.pop(pid, None)
                if child is not None:
                    child.ended(status)
                    self._events.append(Died(child))

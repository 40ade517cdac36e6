"""Looking at a server many times a second while it starts. What `start_truth` is made of; not a benchmark itself."""

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Sample:
    """One look. Wall-clock seconds when it was asked and answered; `status` is None where nobody answered."""

    asked: float
    at: float
    status: int | None


def look(port: int, path: str, seconds: float) -> Sample:
    """Ask once, on a connection of its own; an answer that takes longer than `seconds` is none."""
    asked = time.time()
    status = None
    try:
        with socket.create_connection(("127.0.0.1", port), seconds) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            words = connection.makefile("rb").readline().split()
            status = int(words[1]) if len(words) > 1 else None
    except OSError:
        status = None
    return Sample(asked, time.time(), status)


class Sampler:
    """Looks at `path` at `hertz` until it is closed, or with `until_ok` until the first 200.

    The threads look in turn, and a look may take as long as its thread has until its next turn. So the rate holds also
    while every look hangs, as they do while Docker's port forwarder answers for a network that is not up yet.
    """

    def __init__(self, port: int, path: str, hertz: float, *, threads: int, until_ok: bool = False) -> None:
        self._port, self._path, self._until_ok = port, path, until_ok
        self._changed = threading.Condition()
        self._samples: list[Sample] = []
        self._first: Sample | None = None
        self._closed = False
        self._period, begin = threads / hertz, time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, args=(begin + number / hertz,), daemon=True) for number in range(threads)
        ]

    def __enter__(self) -> "Sampler":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(2 * self._period)

    @property
    def samples(self) -> Sequence[Sample]:
        """All looks so far, in the order of their answers."""
        with self._changed:
            return sorted(self._samples, key=lambda sample: sample.at)

    def first_ok(self, timeout: float) -> Sample | None:
        """Wait for the first 200; None after `timeout` seconds, or when the sampler is closed before."""
        with self._changed:
            self._changed.wait_for(lambda: self._first is not None or self._closed, timeout)
            return self._first

    def _run(self, next_look: float) -> None:
        while not self._wait(next_look):
            sample = look(self._port, self._path, self._period)
            with self._changed:
                self._samples.append(sample)
                if sample.status == 200 and self._first is None:
                    self._first = sample
                    self._changed.notify_all()
            next_look = max(next_look + self._period, time.monotonic())

    def _wait(self, until: float) -> bool:
        """Wait for the time of the next look; True when there is none any more."""

        def over() -> bool:
            return self._closed or (self._until_ok and self._first is not None)

        with self._changed:
            return self._changed.wait_for(over, max(0.0, until - time.monotonic()))


def rate(samples: Sequence[Sample], begin: float, end: float) -> float:
    """Looks a second that were really begun between two times."""
    return sum(begin <= sample.asked <= end for sample in samples) / (end - begin)

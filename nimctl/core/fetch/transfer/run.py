"""Moving the bytes: workers that fetch ranges, a thread that hashes what could not be hashed in passing, and a watch.

A worker owns one connection and one buffer of a block. It fills the buffer, has it written, journalled and hashed, and
goes on; a broken connection is opened again at the very byte, so nothing is fetched twice. The caller's thread watches:
it tells the progress, adapts the number of workers, and breaks connections that stall while others flow.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.protocol import Interrupted, RangeIgnored, RangeStream, Remote
from nimctl.core.fetch.retry import Patience, Stop, given_up
from nimctl.core.fetch.transfer.blocks import BLOCK, new_buffer
from nimctl.core.fetch.transfer.limit import Limit
from nimctl.core.fetch.transfer.meter import Meter
from nimctl.core.fetch.transfer.partial import Partial
from nimctl.core.fetch.transfer.schedule import Piece, Schedule, bytes_at_hand

_TICK = 0.1  # seconds between two looks of the watch
_SYNC = 5.0  # seconds between two syncs: what a crash of the machine may cost
_STALLED = 3.0  # seconds without a byte, while other connections bring some
_SLOW = 0.1  # of the median rate of the others, over
_SLOW_SECONDS = 10.0
_MOST_RESCUES = 2
_PARTING = 1.5  # seconds for the workers to end


class Transfer:
    """One run over `partials`, whose files are delivered to `on_sealed(partial, digest in hexadecimal)` one by one."""

    def __init__(
        self,
        partials: Sequence[Partial],
        source: Remote,
        *,
        on_sealed: Callable[[Partial, str], None],
        meter: Meter,
        patience: Patience,
        stop: Stop,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._partials = list(partials)
        self._source = source
        self._on_sealed = on_sealed
        self._meter = meter
        self._patience = patience
        self._outer_stop = stop
        self._still_ours = still_ours
        self._stop = Stop()  # ours: also set at the first error
        self._schedule = Schedule(self._partials)
        self._limit = Limit()
        self._error: BaseException | None = None
        self._retries = 0
        self._restarts: dict[str, int] = {}
        self._corrupt: set[str] = set()  # keys of files that arrived with wrong bytes once
        self._lock = threading.Lock()

    def run(self) -> None:
        """Fetch, verify and deliver every file.

        Raises the first NimctlError or OSError that ends it; what has arrived by then is kept. Returns early, with
        files undelivered, when stopped.
        """
        workers: list[threading.Thread] = []
        helpers = [threading.Thread(target=self._guarded(self._hash), name="hash", daemon=True)]
        helpers += [threading.Thread(target=self._guarded(self._sync), name="sync", daemon=True)]
        for thread in helpers:
            thread.start()
        try:
            while not (self._schedule.ended or self._stop.is_set):
                while len(workers) < self._limit.value and len(workers) < self._limit.most:
                    name = f"fetch-{len(workers)}"
                    worker = threading.Thread(target=self._guarded(self._work, len(workers)), name=name, daemon=True)
                    workers.append(worker)
                    worker.start()
                self._schedule.wait(_TICK)
                self._watch()
        finally:
            self._stop.set()
            for piece in self._schedule.pieces:
                piece.abort()
            self._schedule.wake()
            deadline = time.monotonic() + _PARTING
            for thread in [*workers, *helpers]:
                thread.join(max(0.0, deadline - time.monotonic()))
            # Whoever still waits for a server's answer will see the stop and end; until then its files stay open, as
            # a descriptor that is closed under a writer may come back as another file's.
            if not any(thread.is_alive() for thread in [*workers, *helpers]):
                for partial in self._partials:
                    partial.close()
        if self._error is not None:
            raise self._error

    def _guarded(self, action: Callable[..., None], *arguments: int) -> Callable[[], None]:
        """`action` with its exception handed to the caller's thread."""

        def guarded() -> None:
            try:
                action(*arguments)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                self._stop.set()
                self._schedule.wake()

        return guarded

    def _watch(self) -> None:
        if self._outer_stop.is_set or not self._still_ours():
            self._stop.set()
            return
        now, pieces = time.monotonic(), self._schedule.pieces
        total = bytes_at_hand(self._partials, pieces)
        self._limit.observe(now, total)
        self._meter.transfer(self._partials, pieces, total, self._retries)
        newest = max((piece.touched for piece in pieces), default=now)
        rates = [piece.received / (now - piece.since) for piece in pieces if now - piece.since > _SLOW_SECONDS]
        median = statistics.median(rates) if len(rates) > 2 else 0.0
        for piece in pieces:
            stalled = now - piece.touched > _STALLED and newest - piece.touched > _STALLED / 2
            lived = now - piece.since
            slow = lived > _SLOW_SECONDS and piece.received / lived < median * _SLOW and piece.rescued < _MOST_RESCUES
            if (stalled or slow) and piece.abort():
                piece.rescued += 1
                piece.since, piece.received, piece.touched = now, 0, now

    def _work(self, index: int) -> None:
        buffer = new_buffer()
        while not (self._stop.is_set or self._schedule.ended):
            work = self._schedule.take() if index < self._limit.value else None
            if work is None:
                self._schedule.wait(0.2)
            elif isinstance(work, Partial):
                self._seal(work, buffer)
            else:
                try:
                    work.partial.open()
                    self._fetch(work, buffer)
                finally:
                    self._schedule.give_back(work)

    def _fetch(self, piece: Piece, buffer: memoryview) -> None:
        failures = 0
        while piece.block < piece.stop and not (self._stop.is_set or self._schedule.is_given_up(piece.partial)):
            before = piece.block, piece.filled
            try:
                self._stream(piece, buffer)
            except RangeIgnored:
                self._begin_anew(piece.partial, "the server sends the whole file whatever range is asked for")
                return
            except Interrupted as interruption:
                if self._stop.is_set:
                    return
                if self._schedule.is_sequential(piece.partial) and piece.partial.file.digest is None:
                    # what nobody knows the digest of is never put together from two answers
                    self._begin_anew(piece.partial, interruption.reason)
                    return
                failures = 1 if (piece.block, piece.filled) > before else failures + 1
                with self._lock:
                    self._retries += 1
                if interruption.crowded:
                    self._limit.complain(time.monotonic())
                if failures >= self._patience.attempts:
                    raise given_up(piece.partial.file.path, interruption, failures) from interruption
                self._stop.pause(self._patience.pause(failures, interruption.retry_after))
                piece.touched = time.monotonic()

    def _begin_anew(self, partial: Partial, reason: str) -> None:
        """Fetch the file from its first byte, over one connection."""
        if not self._schedule.go_sequential(partial):
            return  # another worker met the same
        with self._lock:
            self._retries += 1
            times = self._restarts[partial.file.key] = self._restarts.get(partial.file.key, 0) + 1
        if times >= self._patience.attempts:
            raise given_up(partial.file.path, Interrupted(reason), times)

    def _stream(self, piece: Piece, buffer: memoryview) -> None:
        """One connection: from where `piece` stands to its end."""
        partial = piece.partial
        first = piece.block * BLOCK + piece.filled
        skip = 0
        if self._schedule.is_sequential(partial):
            skip, first = first, 0
        asked = min(piece.stop * BLOCK, partial.file.size)
        stream = self._source.open_range(partial.file, first, asked)
        piece.stream = stream
        piece.touched = time.monotonic()
        try:
            _discard(stream, skip, piece)
            while piece.block < piece.stop and not self._stop.is_set:
                length = partial.length_of(piece.block)
                while piece.filled < length:
                    piece.touch(_read(stream, buffer[piece.filled : length]))
                if length < BLOCK:
                    buffer[length:] = bytes(BLOCK - length)
                partial.put(piece.block, buffer)
                piece.filled = 0
                piece.block += 1
        finally:
            piece.stream = None
            stream.close()

    def _seal(self, partial: Partial, buffer: memoryview) -> None:
        """Verify a file whose blocks are all there, and deliver it; one with a wrong digest is fetched anew, once."""
        partial.open()
        digest = partial.finish(buffer, self._stop)
        if self._stop.is_set:
            return
        if digest is not None:
            partial.close()
            self._on_sealed(partial, digest)
            self._schedule.sealed(partial)
            return
        key = partial.file.key
        if key in self._corrupt:
            partial.remove()  # not worth resuming from
            raise NimctlError(
                "weights-corrupt",
                f"{partial.file.path} arrived twice with wrong bytes",
                cause=f"its {partial.file.size} bytes do not have the digest {partial.file.digest}",
                fix="Run it again; if it goes on, the source, a proxy on the way, or this machine's memory is damaged.",
            )
        self._corrupt.add(key)
        with self._lock:
            self._restarts[key] = self._restarts.get(key, 0) + 1
        self._schedule.restart(partial)

    def _hash(self) -> None:
        """Hash what arrived out of turn, or in an earlier process, beside the downloads."""
        buffer = new_buffer()
        while not (self._stop.is_set or self._schedule.ended):
            behind = [partial for partial in self._partials if partial.lag and not partial.whole]
            if not behind:
                self._stop.pause(0.05)
            for partial in behind:
                partial.catch_up(buffer, 16, self._stop)

    def _sync(self) -> None:
        while not self._stop.pause(_SYNC):
            for partial in self._partials:
                if not partial.whole:
                    partial.sync()


def _read(stream: RangeStream, buffer: memoryview) -> int:
    """At least one byte. Raises `Interrupted` where the source ends before everything came that was asked for."""
    count = stream.readinto(buffer)
    if not count:
        raise Interrupted("the source sent less than was asked for")
    return count


def _discard(stream: RangeStream, count: int, piece: Piece) -> None:
    """Read over `count` bytes that are there already."""
    scratch = memoryview(bytearray(min(count, 256 * 1024)))
    while count:
        count -= _read(stream, scratch[: min(count, len(scratch))])
        piece.touched = time.monotonic()

"""Which bytes are asked for next: one pool of connections over all files, the longest remaining first.

A file that nobody works on comes before a second connection to one. When nothing is left to give, the largest piece in
work is split, so that the end of a download is not one lonely connection.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from nimctl.core.fetch.protocol import RangeStream
from nimctl.core.fetch.transfer.blocks import BLOCK
from nimctl.core.fetch.transfer.partial import Partial

_LONGEST = 64  # blocks in one range: 256 MiB, a hundred seconds at 20 Mbit/s, well below the life of a signed address
_WORTH_SPLITTING = 8  # blocks: below 32 MiB a new connection costs more than it brings


@dataclass(eq=False)
class Piece:
    """Blocks [`block`, `stop`) of a file in the hands of one worker; `stop` may be lowered by the schedule."""

    partial: Partial
    block: int
    stop: int
    filled: int = 0  # bytes of `block` that have arrived
    stream: RangeStream | None = None
    touched: float = field(default_factory=time.monotonic)
    received: int = 0  # bytes since the piece was given
    since: float = field(default_factory=time.monotonic)
    rescued: int = 0  # times its connection was given up for being slow

    def abort(self) -> bool:
        """Break its connection; whether there was one."""
        stream = self.stream  # once: its worker may put it away meanwhile
        if stream is None:
            return False
        stream.abort()
        return True

    def touch(self, count: int) -> None:
        """Note `count` new bytes."""
        self.filled += count
        self.received += count
        self.touched = time.monotonic()


class Schedule:
    """The work that is left in `partials`, for any number of workers."""

    def __init__(self, partials: Sequence[Partial]) -> None:
        self._lock = threading.Condition()
        self._left = list(partials)  # not sealed yet
        self._ready: list[Partial] = [p for p in partials if p.whole]  # every block is there; to be sealed
        self._pieces: list[Piece] = []
        self._sequential: set[str] = set()
        self._restart: set[str] = set()

    @property
    def pieces(self) -> list[Piece]:
        """The pieces in work."""
        with self._lock:
            return list(self._pieces)

    @property
    def ended(self) -> bool:
        """Whether every file is sealed."""
        with self._lock:
            return not self._left

    def take(self) -> Piece | Partial | None:
        """A piece to fetch, or a file whose blocks are all there and that has to be sealed; None for now."""
        with self._lock:
            if self._ready:
                return self._ready.pop()
            best: tuple[tuple[int, float], Partial, range] | None = None
            for partial in self._left:
                busy = sum(piece.partial is partial for piece in self._pieces)
                if partial.whole or (busy and partial.file.key in self._sequential):
                    continue
                if partial.file.key in self._restart and not busy:
                    self._restart.discard(partial.file.key)
                    partial.reset()
                free = self._free(partial)
                if free:
                    weight = (-busy, float(partial.file.size - partial.done_bytes) / (busy + 1))
                    if best is None or weight > best[0]:
                        best = (weight, partial, free)
            if best is not None:
                _, partial, free = best
                stop = free.stop
                if partial.file.key not in self._sequential:
                    stop = min(stop, free.start + _LONGEST)
                return self._give(Piece(partial, free.start, stop))
            return self._split()

    def is_sequential(self, partial: Partial) -> bool:
        """Whether the source can only send this file whole."""
        with self._lock:
            return partial.file.key in self._sequential

    def give_back(self, piece: Piece) -> None:
        """The worker has done with `piece`, finished or not."""
        with self._lock:
            self._pieces.remove(piece)
            if piece.partial.whole and not any(p.partial is piece.partial for p in self._pieces):
                self._ready.append(piece.partial)
            self._lock.notify_all()

    def is_given_up(self, partial: Partial) -> bool:
        """Whether the file is to begin anew as soon as everybody has let go of it."""
        with self._lock:
            return partial.file.key in self._restart

    def go_sequential(self, partial: Partial) -> bool:
        """The source sends this file only whole: begin it anew with one connection, once the others let go of it.

        False where that was decided already.
        """
        with self._lock:
            if partial.file.key in self._restart:
                return False
            self._sequential.add(partial.file.key)
            self._restart.add(partial.file.key)
            others = [piece for piece in self._pieces if piece.partial is partial]
        for piece in others:
            piece.abort()
        return True

    def restart(self, partial: Partial) -> None:
        """Fetch the file anew."""
        with self._lock:
            self._restart.add(partial.file.key)
            partial.reset()
            self._restart.discard(partial.file.key)
            if partial.whole:  # an empty file: there is nothing to fetch, and it will fail again
                self._ready.append(partial)
            self._lock.notify_all()

    def sealed(self, partial: Partial) -> None:
        """The file is finished."""
        with self._lock:
            self._left.remove(partial)
            self._lock.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until the work changes."""
        with self._lock:
            self._lock.wait(seconds)

    def wake(self) -> None:
        """Let everybody look again."""
        with self._lock:
            self._lock.notify_all()

    def _give(self, piece: Piece) -> Piece:
        self._pieces.append(piece)
        return piece

    def _free(self, partial: Partial) -> range:
        """The first blocks without a gap that are neither there nor in work."""
        taken = sorted((p.block, p.stop) for p in self._pieces if p.partial is partial)
        start, count, done = 0, partial.count, partial.done
        while start < count:
            start = done.find(0, start)
            if start < 0:
                break
            inside = next((stop for first, stop in taken if first <= start < stop), None)
            if inside is None:
                stop = done.find(1, start)
                stop = count if stop < 0 else stop
                return range(start, min([stop, *(first for first, _ in taken if first > start)]))
            start = inside
        return range(0)

    def _split(self) -> Piece | None:
        """The second half of the piece with most blocks to go."""
        candidates = [p for p in self._pieces if p.partial.file.key not in self._sequential]
        largest = max(candidates, key=lambda p: p.stop - p.block, default=None)
        if largest is None or largest.stop - largest.block < _WORTH_SPLITTING:
            return None
        middle = (largest.block + largest.stop + 1) // 2
        piece = Piece(largest.partial, middle, largest.stop)
        largest.stop = middle
        return self._give(piece)


def bytes_at_hand(partials: Sequence[Partial], pieces: Sequence[Piece]) -> int:
    """Bytes that have arrived, those of unfinished blocks included."""
    return sum(p.done_bytes for p in partials) + sum(min(piece.filled, BLOCK) for piece in pieces)

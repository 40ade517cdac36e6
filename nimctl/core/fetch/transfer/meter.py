"""Progress as data: bytes, rate, time to go, retries and the state of every file, told twice a second."""

import time
from collections import deque
from collections.abc import Sequence

from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.protocol import FileProgress, FileState, OnProgress, Phase, Progress
from nimctl.core.fetch.transfer.partial import Partial
from nimctl.core.fetch.transfer.schedule import Piece

_EVERY = 0.5  # seconds between two reports
_WINDOW = 15.0  # seconds that the rate is taken over: shorter jumps with every retry, longer hides a stall


class Meter:
    """Tells `on_progress` how far the fetch of `files` is. Called from one thread."""

    def __init__(self, files: Sequence[File], on_progress: OnProgress) -> None:
        self._files = {file.key: file for file in files}
        self._total = sum(file.size for file in self._files.values())
        self._states: dict[str, tuple[int, FileState]] = dict.fromkeys(self._files, (0, "waiting"))
        self._on_progress = on_progress
        self._samples: deque[tuple[float, int]] = deque()
        self._told = 0.0

    def set(self, file: File, state: FileState, done: int | None = None) -> None:
        """Note the state of one file; `done` bytes of it, all by default."""
        self._states[file.key] = (file.size if done is None else done, state)

    def waiting(self, detail: str) -> None:
        """Tell that another process is waited for."""
        self._tell(self._sum(), "waiting", detail=detail)

    def verifying(self, done: int, file: File) -> None:
        """Tell that bytes which were there already are hashed; `done` of this file."""
        self.set(file, "verifying", done)
        self._tell(self._sum(), "verifying", file=file.path)

    def moving(self, phase: Phase, done: int, file: File, *, retries: int = 0) -> None:
        """Tell that what is in the cache is brought elsewhere; `done` bytes of this file."""
        self.set(file, "moving", done)
        self._tell(self._sum(), phase, file=file.path, retries=retries)

    def transfer(self, partials: Sequence[Partial], pieces: Sequence[Piece], total: int, retries: int) -> None:
        """Tell how far a transfer is."""
        now = time.monotonic()
        if now - self._told < _EVERY:
            return
        working = {piece.partial.file.key for piece in pieces}
        for partial in partials:
            key = partial.file.key
            if self._states[key][1] != "done":
                state: FileState = "verifying" if partial.whole else "fetching" if key in working else "waiting"
                self._states[key] = (partial.done_bytes, state)
        # bytes of blocks that are not finished count for the sum, so that a slow link moves as well
        loose = total - sum(partial.done_bytes for partial in partials)
        file = next((piece.partial.file.path for piece in pieces), None)
        self._tell(self._sum() + loose, "fetching", file=file, retries=retries, connections=len(pieces))

    def finished(self) -> None:
        """Tell the end."""
        for key, file in self._files.items():
            self._states[key] = (file.size, "done")
        self._told = 0.0
        self._tell(self._total, "done")

    def _sum(self) -> int:
        return sum(done for done, _ in self._states.values())

    def _tell(
        self,
        done: int,
        phase: Phase,
        *,
        file: str | None = None,
        detail: str | None = None,
        retries: int = 0,
        connections: int = 0,
    ) -> None:
        now = time.monotonic()
        if now - self._told < _EVERY:
            return
        self._told = now
        self._samples.append((now, done))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        (then, first), elapsed = self._samples[0], now - self._samples[0][0]
        rate = max(0.0, (done - first) / elapsed) if elapsed > 0 and then < now else None
        self._on_progress(
            Progress(
                min(done, self._total),
                self._total,
                file,
                rate=rate,
                eta=(self._total - done) / rate if rate and done < self._total else None,
                retries=retries,
                connections=connections,
                phase=phase,
                detail=detail,
                files=tuple(FileProgress(f.path, *_pair(self._states[key], f.size)) for key, f in self._files.items()),
            )
        )


def _pair(state: tuple[int, FileState], size: int) -> tuple[int, int, FileState]:
    return state[0], size, state[1]

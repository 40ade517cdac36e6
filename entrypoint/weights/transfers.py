"""The progress of a fetch in its three forms: fields of the start report, lines of the log, lines of JSON."""

import time
from collections.abc import Callable
from typing import Any

from nimctl.core.fetch import FileProgress, Progress
from nimctl.core.plain import to_plain
from nimctl.core.stages import MOST_FILES, PROGRESS_SCHEMA, StageFile

# What moves is shown first, should there be too many files to show.
_ORDER = {"fetching": 0, "moving": 0, "verifying": 1, "waiting": 2, "done": 3}
_PHASES = {
    "resolving": "asking the source for its files",
    "waiting": "waiting for another process",
    "verifying": "verifying",
    "fetching": "fetching",
    "copying": "copying",
    "uploading": "uploading",
    "done": "complete",
}

Clock = Callable[[], float]


def stage_fields(progress: Progress) -> dict[str, Any]:
    """The fields of `Stage` that this progress sets; files are sorted by what happens to them, then by path."""
    files = sorted(progress.files, key=lambda file: (_ORDER[file.state], file.path))[:MOST_FILES]
    return {
        "bytes": progress.bytes,
        "total": progress.total,
        "rate": progress.rate,
        "eta": progress.eta,
        "retries": progress.retries,
        "connections": progress.connections,
        "phase": progress.phase,
        "detail": progress.detail or progress.file,
        "files": tuple(StageFile(file.path, file.bytes, file.size, file.state) for file in files),
    }


def in_words(progress: Progress) -> str:
    """One line for people, such as `fetching 120.0 of 595.1 GB (20 %), 1.2 GB/s, 6 min left, 16 connections`."""
    if progress.phase in ("resolving", "waiting") and not progress.bytes:
        return progress.detail or _PHASES[progress.phase]
    words = [f"{_PHASES[progress.phase]} {_of(progress)}"]
    if progress.phase != "done":
        words += [f"{amount(progress.rate)}/s"] if progress.rate else []
        words += [f"{duration(progress.eta)} left"] if progress.eta is not None else []
        words += [_count(progress.connections, "connection")] if progress.connections else []
        words += [_count(progress.retries, "retry", "retries")] if progress.retries else []
        words += [progress.detail] if progress.detail else []
    return ", ".join(words)


def _of(progress: Progress) -> str:
    if not progress.total:
        return amount(progress.bytes)
    share = 100 * progress.bytes // progress.total
    return f"{amount(progress.bytes)} of {amount(progress.total)} ({share} %)"


def amount(size: float) -> str:
    """Bytes in the decimal units of disks and networks."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as people say them; exact to a tenth or so."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


class Lines:
    """Progress as lines of a log: each new phase, then every 5 % but not within 5 s, and every minute in any case."""

    def __init__(self, say: Callable[[str], None], *, clock: Clock = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._told = float("-inf")
        self._seen: tuple[str, str | None] | None = None
        self._share = 0.0
        self._last: Progress | None = None
        self._first: Progress | None = None

    def see(self, progress: Progress) -> None:
        """Say it, if it is worth a line."""
        if progress.phase not in ("resolving", "waiting", "done"):
            self._first = self._first or progress
        self._last = progress
        if progress.phase == "done":
            return  # whoever asked for the fetch says where its result is
        now, share = self._clock(), progress.bytes / progress.total if progress.total else 0.0
        seen = (progress.phase, progress.detail)
        moved = share - self._share >= 0.05 and now - self._told >= 5
        if seen != self._seen or moved or now - self._told >= 60:
            self._seen, self._told, self._share = seen, now, share
            self._say(in_words(progress))

    @property
    def summary(self) -> str:
        """What was done, after the end: `: 595.1 GB in 512 s`; nothing where nothing had to be done."""
        if self._last is None or self._first is None:
            return ""
        retries = f", {_count(self._last.retries, 'retry', 'retries')}" if self._last.retries else ""
        return f": {amount(self._last.bytes)} after {duration(self._clock() - self._began)}{retries}"


class JsonLines:
    """Progress as objects for machines: each new phase and wait for a source, at most one in `every` seconds else.

    `files` of a line are those whose state changed since the line before.
    """

    def __init__(
        self, write: Callable[[dict[str, Any]], None], *, every: float = 1.0, clock: Clock = time.monotonic
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._told = float("-inf")
        self._seen: tuple[str, str | None] | None = None
        self._states: dict[str, str] = {}

    def see(self, progress: Progress) -> None:
        """Write it, if its time has come."""
        now = self._clock()
        seen = (progress.phase, progress.detail if progress.phase == "resolving" else None)
        if seen == self._seen and now - self._told < self._every:
            return
        self._seen, self._told = seen, now
        changed = [file for file in progress.files if self._states.get(file.path, "waiting") != file.state]
        self._states |= {file.path: file.state for file in changed}
        self._write({"schema": PROGRESS_SCHEMA, "event": "progress", **_fields(progress, changed)})


def _fields(progress: Progress, files: list[FileProgress]) -> dict[str, Any]:
    names = ("phase", "bytes", "total", "rate", "eta", "retries", "connections", "file", "detail")
    return {**{name: getattr(progress, name) for name in names}, "files": to_plain(files)}

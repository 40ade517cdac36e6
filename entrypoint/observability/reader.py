"""One stream of another program's output on its way into the journal: each message once, as one record.

In JSON a traceback is one record, so its lines are held back until it is known that it is over: when another line
comes, or when nothing came for a moment (`settle`). For people each line is passed on at once.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from entrypoint.observability import foreign
from entrypoint.observability.lines import Line
from nimctl.core.logshape import Record

# Lines of one message are written at once; later ones are another message.
SETTLE_SECONDS = 0.3
_MOST_LINES = 400
_MOST_CHARACTERS = 65_536

Writer = tuple[str | None, int | None]  # the name of a process and its number


class Reader:
    """Takes the lines of one program. From any thread; `pass_on` gets the records in the order of their beginnings."""

    def __init__(
        self,
        stage: str,
        pass_on: Callable[[Record], None],
        *,
        joins: Callable[[], bool],
        content: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stage = stage
        self._pass_on = pass_on
        self._joins = joins
        self._content = content
        self._clock = clock
        self._lock = Lock()
        # Messages that may go on, by the process that wrote them; None: by whoever writes without a prefix.
        self._open: dict[Writer | None, Record] = {}
        self._raw_at = float("-inf")
        self._raw: Record | None = None
        self._in_traceback = False

    def see(self, line: Line) -> None:
        """One line. What a progress bar draws anew is left out: its last state comes with a line feed."""
        if line.redrawn:
            return
        with self._lock:
            now = self._clock()
            record, known = foreign.parse(line.text, self._stage, now, content=self._content())
            if known:
                self._see_known(record, goes_on=line.ending == "\r\n")
            elif record.message.strip():
                self._see_raw(record, now)

    def settle(self, *, older_than: float = SETTLE_SECONDS) -> None:
        """Pass on what has been waiting for more for so long."""
        with self._lock:
            self._settle(older_than)

    def _see_known(self, record: Record, *, goes_on: bool) -> None:
        failed = record.process == "uvicorn" and record.level == "ERROR"
        if failed or (record.process is None and record.level == "WARNING"):
            # the traceback of a failed request, or the code that Python warns of, stands below without a prefix
            self._raw, self._raw_at, self._in_traceback = record, record.time, False
            self._hold(None, record)
            return
        if record.pid is None:  # lines without a process's number come from those who write raw lines
            self._release(None)
            self._raw, self._in_traceback = None, False
        key = (record.process, record.pid)
        before = self._open.get(key)
        if before is not None and _same_head(before, record):
            self._open[key] = _joined(before, record.message)
        else:
            self._hold(key, record)
        if not goes_on:
            self._release(key)

    def _see_raw(self, record: Record, now: float) -> None:
        fresh = self._raw is not None and now - self._raw_at <= SETTLE_SECONDS
        begins = foreign.is_traceback(record.message)
        follows = fresh and (
            self._in_traceback
            or (begins and self._raw is not None and self._raw.level == "ERROR")
            or foreign.belongs(record.message)
        )
        self._in_traceback = begins or (follows and self._in_traceback)
        if follows and self._raw is not None:
            record = replace(record, level=self._raw.level)
        self._raw, self._raw_at = record, now
        if follows and None in self._open and _short(self._open[None]):
            self._open[None] = _joined(self._open[None], record.message)
        else:
            self._hold(None, record)

    def _hold(self, key: Writer | None, record: Record) -> None:
        """Keep a record that may go on, in the place of the one before it."""
        self._release(key)
        self._open[key] = record
        if not self._joins():
            self._release(key)

    def _settle(self, older_than: float) -> None:
        now = self._clock()
        for key, record in list(self._open.items()):
            last = self._raw_at if key is None else record.time
            if now - last >= older_than:
                self._release(key)

    def _release(self, key: Writer | None) -> None:
        record = self._open.pop(key, None)
        if record is not None:
            self._pass_on(foreign.place(record))


def _same_head(one: Record, other: Record) -> bool:
    return (one.level, one.file_name, one.line_number) == (other.level, other.file_name, other.line_number)


def _joined(record: Record, text: str) -> Record:
    return replace(record, message=f"{record.message}\n{text}") if _short(record) else record


def _short(record: Record) -> bool:
    return len(record.message) < _MOST_CHARACTERS and record.message.count("\n") < _MOST_LINES

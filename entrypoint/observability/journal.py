"""The container's log: one shape for what we, the engine and nginx say, for people or as JSON, without secrets.

Whoever reads our output may be slow or gone. The engine's output must be read all the same, or the engine stops: so a
server writes from a thread of its own (`start_writing`), and what cannot be kept until it is read is counted and left
out. Actions write at once: what they print is their result.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from entrypoint.observability.foreign import without_content
from entrypoint.observability.lines import Line
from entrypoint.observability.reader import Reader
from nimctl.core.errors import NimctlError
from nimctl.core.logshape import Record, as_json, as_text
from nimctl.core.secret import Secret, redact
from nimctl.core.stages import Stage

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_MOST_WAITING = 16 * 2**20  # characters that wait for a slow reader
_SETTLE_SECONDS = 0.1
_CLOSE_SECONDS = 2.0
_BLOCK_SECONDS = 1.0  # for the block on stderr, which somebody may not read either


class Journal:
    """Writes whole lines, from any thread. `level` is the least level that is shown."""

    def __init__(self, stream: TextIO | None = None, *, level: str = "INFO", secrets: Iterable[Secret] = ()) -> None:
        self._stream = stream or sys.stdout
        self._least = _LEVELS[level]
        self._secrets = tuple(secrets)
        self._json = self._content = False
        self._wake = threading.Condition()
        self._waiting: list[str] = []
        self._size = self._dropped = 0
        self._writing = False
        self._writer: threading.Thread | None = None
        self._block: threading.Thread | None = None
        self._readers: list[Reader] = []

    def configure(self, *, level: str, secrets: Iterable[Secret], as_json: bool = False, content: bool = False) -> None:
        """Set what is known only once the settings have been read.

        `as_json`: JSON lines. `content`: what the engine's lines repeat of requests may be shown.
        """
        self._least = _LEVELS[level]
        self._secrets = tuple(secrets)
        self._json, self._content = as_json, content

    def debug(self, stage: str, message: str) -> None:
        """What only helps to find a fault."""
        self._say("DEBUG", stage, message)

    def info(self, stage: str, message: str) -> None:
        """What happens."""
        self._say("INFO", stage, message)

    def warning(self, stage: str, message: str) -> None:
        """What the user should know but need not act upon now."""
        self._say("WARNING", stage, message)

    def error(self, stage: str, message: str) -> None:
        """What ends the server, or what one of its requests."""
        self._say("ERROR", stage, message)

    def event(self, stage: str, name: str, message: str, **members: Any) -> None:
        """Something that programs look for: `event` and `members` are told in JSON, the message in both forms."""
        self._say("INFO", stage, message, {"event": name, **members})

    def stage(self, stage: Stage) -> None:
        """A stage of the start began or ended."""
        seconds = stage.seconds or 0.0
        if stage.state == "running":
            self._say("INFO", stage.name, "the stage begins", {"event": "stage_begin"})
            return
        why = f" ({stage.error_id})" if stage.error_id else ""
        members: dict[str, Any] = {"event": "stage_end", "state": stage.state, "seconds": seconds}
        if stage.steps:
            members["steps"] = {step.name: step.seconds for step in stage.steps}
        self._say("INFO", stage.name, f"the stage is {stage.state}{why} after {seconds:.1f} s", members)

    def failure(self, error: NimctlError, more: Mapping[str, Any]) -> None:
        """The last line on stdout, an object in both forms; for people a block on stderr as well."""
        self._settle()
        document = {"event": "failed", "error": error.to_json(), **more}
        if self._json:  # where both streams end in one place, every line must be an object
            cleaned = self.clean_document(document)
            message = self.clean(f"{error.message}: {error.cause}")
            self._put(as_json(Record("CRITICAL", time.time(), "end", message, more=cleaned)))
            return
        evidence = "".join(f"\n    {line}" for line in error.evidence)
        block = f"error[{error.id}] {error.message}\n  cause: {error.cause}\n  fix: {error.fix}{evidence}"
        self._write_block(self.clean(block) + "\n")
        self.line(json.dumps(document))

    def _write_block(self, text: str) -> None:
        if not self._writing:
            _write_error(text)
            return
        self._block = threading.Thread(target=_write_error, args=(text,), name="journal-block", daemon=True)
        self._block.start()
        self._block.join(_BLOCK_SECONDS)  # so that it stands before the last line where both streams are one

    def reader(self, stage: str) -> Callable[[Line], None]:
        """What takes the output of a program, line by line, and writes it in our shape as said by `stage`."""
        one = Reader(stage, self._write, joins=lambda: self._json, content=lambda: self._content)
        with self._wake:
            self._readers.append(one)
        return one.see

    def line(self, text: str) -> None:
        """A line as it is, secrets masked: the result of an action."""
        self._put(self.clean(text))

    def clean(self, text: str) -> str:
        """`text` with every known secret masked."""
        return redact(text, self._secrets)

    def clean_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """A JSON document with every known secret masked."""
        return dict(json.loads(self.clean(json.dumps(document))))

    def tidy(self, line: str) -> str:
        """A raw line of a program as it may be kept and shown: without secrets, and without what requests said."""
        return self.clean(line if self._content else without_content(line))

    def start_writing(self) -> None:
        """From here on, write beside the callers, so that a reader that is slow never holds one of them."""
        with self._wake:
            if self._writer is None:
                self._writing = True
                self._writer = threading.Thread(target=self._write_on, name="journal", daemon=True)
                self._writer.start()

    def close(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Write what waits, for so many seconds at most; later lines are written at once.

        False where that was not enough: then a thread still writes, holds the lock of the stream, and whoever flushes
        or writes the stream waits for as long as nobody reads it.
        """
        self._settle()
        with self._wake:
            writer, self._writing = self._writer, False
            self._wake.notify_all()
        if writer is not None:
            writer.join(seconds)
        return not any(thread is not None and thread.is_alive() for thread in (writer, self._block))

    def _settle(self) -> None:
        """Have the readers pass on what they hold back."""
        with self._wake:
            readers = tuple(self._readers)
        for reader in readers:
            reader.settle(older_than=0.0)

    def _say(self, level: str, stage: str, message: str, more: dict[str, Any] | None = None) -> None:
        if _LEVELS[level] < self._least:
            return
        frame = sys._getframe(2)  # as the logging package of Python finds out who speaks
        file, number = Path(frame.f_code.co_filename).name, frame.f_lineno
        text = " ".join(message.split())
        self._write(Record(level, time.time(), stage, text, file, number, more=more or {}))

    def _write(self, record: Record) -> None:
        if _LEVELS[record.level] < self._least:
            return
        shaped = replace(record, message=self.clean(record.message))
        self._put(as_json(shaped) if self._json else as_text(shaped))

    def _put(self, text: str) -> None:
        with self._wake:
            if self._writing:
                if self._size + len(text) <= _MOST_WAITING:
                    self._waiting.append(text)
                    self._size += len(text)
                else:
                    self._dropped += 1
                self._wake.notify_all()
                return
            self._emit(text)

    def _emit(self, text: str) -> None:
        # Nobody may be listening any more; the service goes on all the same.
        with suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()

    def _write_on(self) -> None:
        """The writer's life: it writes what waits, and lets readers pass on what nobody adds to any more."""
        while True:
            with self._wake:
                if self._writing and not self._waiting:
                    self._wake.wait(_SETTLE_SECONDS)
                texts, dropped = self._waiting, self._dropped
                self._waiting, self._size, self._dropped = [], 0, 0
                readers, writing = tuple(self._readers), self._writing
            for text in texts:
                self._emit(text)
            if dropped:
                self._emit(self._tell_dropped(dropped))
            if not writing and not texts:
                return
            for reader in readers:
                reader.settle()

    def _tell_dropped(self, count: int) -> str:
        message = f"{count} lines of this log were left out: whoever reads it is too slow"
        record = Record("WARNING", time.time(), "log", message)
        return as_json(record) if self._json else as_text(record)


def _write_error(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()

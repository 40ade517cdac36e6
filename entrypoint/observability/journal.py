"""Journal lines: `2026-01-01T00:00:00Z level stage message` on one stream, without secrets."""

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from threading import Lock
from typing import TextIO

from nimctl.core.secret import Secret, redact

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Journal:
    """Writes whole lines, from any thread. `level` is the least level that is shown."""

    def __init__(self, stream: TextIO | None = None, *, level: str = "INFO", secrets: Iterable[Secret] = ()) -> None:
        self._stream = stream or sys.stdout
        self._least = _LEVELS[level]
        self._secrets = tuple(secrets)
        self._lock = Lock()

    def configure(self, *, level: str, secrets: Iterable[Secret]) -> None:
        """Set what is known only once the settings have been read."""
        self._least = _LEVELS[level]
        self._secrets = tuple(secrets)

    def info(self, stage: str, message: str) -> None:
        """What happens."""
        self._write("INFO", stage, message)

    def warning(self, stage: str, message: str) -> None:
        """What the user should know but need not act upon now."""
        self._write("WARNING", stage, message)

    def error(self, stage: str, message: str) -> None:
        """What ends the server."""
        self._write("ERROR", stage, message)

    def line(self, text: str) -> None:
        """A line as another program wrote it, secrets masked."""
        self._put(self.clean(text))

    def clean(self, text: str) -> str:
        """`text` with every known secret masked."""
        return redact(text, self._secrets)

    def _write(self, level: str, stage: str, message: str) -> None:
        if _LEVELS[level] >= self._least:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._put(f"{now} {level.lower()} {stage} {self.clean(' '.join(message.split()))}")

    def _put(self, text: str) -> None:
        # Nobody may be listening any more; the engine's output must be read all the same, or the engine stops.
        with self._lock, suppress(OSError):
            self._stream.write(text + "\n")
            self._stream.flush()

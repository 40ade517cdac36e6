"""How many requests were answered by route and code: counted from nginx's own log, far away from the tokens.

nginx writes `ROUTE CODE` lines to a file, buffered, at most a second late; this reads what is new and, before the file
grows, has nginx begin another: https://nginx.org/en/docs/control.html#logs . However slow we are, nginx never waits.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from entrypoint.front.routes import table

_LARGEST = 2**20
# Each worker of nginx turns to the new file when it comes to it; the looks are a second apart.
_PATIENT_LOOKS = 3
_OTHER = "other"
_ROUTES = frozenset(route.path for route in table(sagemaker=True, scale_out=True)) | {_OTHER}


class RequestCounts:
    """Counts since the start, by route of the table (or `other`) and status code; 499 is a client that went away."""

    def __init__(self, log: Path, reopen: Callable[[], None], *, largest: int = _LARGEST) -> None:
        self._log = log
        self._reopen = reopen
        self._largest = largest
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._looks: int | None = None  # at the old file since another was asked for
        self._counts: Counter[tuple[str, str]] = Counter()

    def read(self) -> dict[tuple[str, str], int]:
        """The counts up to now. Never raises: a log that cannot be read leaves the counts as they were."""
        with suppress(OSError):
            self._read()
        return dict(self._counts)

    def close(self) -> None:
        """Let go of the log."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> None:
        if self._file is None:
            self._file = self._log.open("rb")
        for chunk in iter(lambda: self._file.read(2**16) if self._file else b"", b""):
            self._count(chunk)
        if self._looks is not None:
            self._looks += self._log.exists()
            if self._looks >= _PATIENT_LOOKS:
                self._file.close()
                self._file, self._rest, self._looks = None, b"", None
                self._log.with_suffix(".old").unlink(missing_ok=True)
        elif self._file.tell() > self._largest:
            self._log.rename(self._log.with_suffix(".old"))
            self._looks = 0
            self._reopen()

    def _count(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            route, _, code = line.decode(errors="replace").partition(" ")
            if route in _ROUTES and len(code) == 3 and code.isdecimal():
                self._counts[route, code] += 1


def reopen_logs(pid: int) -> None:
    """Tell the nginx whose master is `pid` to begin its log again."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)

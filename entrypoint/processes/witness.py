"""Sees which process of the engine went first. vLLM's own server tells of a lost core only seconds later, or never."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from entrypoint.processes.child import descendants

# How vLLM names its processes (set_process_title): `VLLM::EngineCore`, `VLLM::Worker_TP0`, `VLLM::APIServer`.
_PREFIX = b"VLLM::"
# What an engine that ends in order needs between its core's end and its own.
GRACE_SECONDS = 2.0


class Witness:
    """Watches the named processes below the engine; `look` once a second is enough."""

    def __init__(
        self,
        pid: int,
        *,
        names: Callable[[int], dict[int, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid = pid
        self._names = names or named
        self._clock = clock
        self._seen: dict[int, str] = {}
        self._lost_at: float | None = None
        self.first: str | None = None

    def look(self) -> bool:
        """True once a process of the engine has been gone for longer than an orderly end takes; `first` names it."""
        current = self._names(self._pid)
        if self.first is None:
            gone = [name for pid, name in self._seen.items() if pid not in current]
            self._seen = current
            if gone:
                self.first, self._lost_at = gone[0], self._clock()
        return self._lost_at is not None and self._clock() - self._lost_at >= GRACE_SECONDS


def named(pid: int) -> dict[int, str]:
    """The processes below `pid` that vLLM has named, without its prefix."""
    found = {}
    for each in descendants(pid):
        with suppress(OSError):
            title = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0", 1)[0]
            if title.startswith(_PREFIX):
                found[each] = title[len(_PREFIX) :].decode(errors="replace").strip()
    return found

"""How a process ended."""

import signal
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Exit:
    """A code, or the signal that killed it; neither where nobody could see it."""

    code: int | None
    signal: int | None

    @property
    def text(self) -> str:
        """Such as `exit code 1` or `SIGKILL`."""
        if self.signal is not None:
            with suppress(ValueError):
                return signal.Signals(self.signal).name
            return f"signal {self.signal}"
        return "an unknown end" if self.code is None else f"exit code {self.code}"

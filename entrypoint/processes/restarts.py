"""How often the engine alone may be started again before its end is the end of the server. Pure but for the clock."""

import time
from collections import deque
from collections.abc import Callable

from nimctl.core.errors import NimctlError

# What a second try may mend. A refused configuration, a full disk or a GPU that fell off is the same next time.
_PASSING = frozenset(
    {
        "engine-died",
        "engine-stalled",
        "engine-out-of-memory",
        "engine-answers-garbage",
        "engine-hangs",
        "warmup-failed",
    }
)
# Seconds before the first, second, ... try: at once, then with room for whatever is being mended outside.
_PAUSES = (0.0, 5.0, 30.0)


class Budget:
    """`limit` restarts within `window` seconds; older ones are forgotten."""

    def __init__(self, limit: int, window: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._spent: deque[float] = deque()
        self.count = 0

    def pause(self, error: NimctlError) -> float | None:
        """Seconds to wait before the engine is started again, or None where this `error` ends the server.

        Spends one restart where it grants one.
        """
        now = self._clock()
        while self._spent and now - self._spent[0] > self._window:
            self._spent.popleft()
        if error.id not in _PASSING or len(self._spent) >= self._limit:
            return None
        pause = _PAUSES[min(len(self._spent), len(_PAUSES) - 1)]
        self._spent.append(now)
        self.count += 1
        return pause

    def said(self) -> str:
        """How much of it is left, for a log line."""
        return f"restart {len(self._spent)} of {self._limit} within {self._window:g} s"

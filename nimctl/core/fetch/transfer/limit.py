"""How many connections: start with some, add while the throughput grows, fewer when the server complains. Pure."""

from dataclasses import dataclass

START = 8
MOST = 16  # each holds a block of 4 MiB, and up to 6 MiB more where obstore reads: 160 MiB together
_WINDOW = 3.0  # seconds of one measurement
_STEP = 2
_WORTH = 1.05  # a step has to bring five percent to be kept
_HOLD = 20.0  # seconds without a further step after one that brought nothing, or after a complaint
_REST = 3.0  # seconds with half the connections after a complaint; those that were told to wait do so by themselves


@dataclass
class Limit:
    """The number of connections in use, between 1 and `most`."""

    value: int = START
    most: int = MOST
    _since: float | None = None
    _bytes: int = 0
    _before: float = 0.0  # bytes a second of the window before the last step; 0: no step is on trial
    _rest_until: float = 0.0
    _back: tuple[float, int] | None = None  # when to go back after a complaint, and to how many

    def observe(self, now: float, total: int) -> None:
        """Take note that `total` bytes have arrived at time `now` (seconds), and adapt."""
        if self._back and now >= self._back[0]:
            self.value, self._back = max(self.value, self._back[1]), None
            self._since = None
        if self._since is None:
            self._since, self._bytes = now, total
            return
        if now - self._since < _WINDOW:
            return
        rate = (total - self._bytes) / (now - self._since)
        self._since, self._bytes = now, total
        if self._before and rate < self._before * _WORTH:
            self.value = max(1, self.value - _STEP)
            self._before, self._rest_until = 0.0, now + _HOLD
        elif now >= self._rest_until and self.value < self.most and rate > 0:
            self._before = rate
            self.value = min(self.most, self.value + _STEP)
        else:
            self._before = 0.0

    def complain(self, now: float) -> None:
        """The server asked for less: half as many for a while, then one fewer than before.

        So a server that bears with a certain number is met just below it, and one that was short of breath for a
        moment costs little. Complaints during the rest are of requests from before it, and do not count.
        """
        if self._back and now < self._back[0]:
            return
        self._back = now + _REST, max(1, self.value - 1)
        self.value = max(1, self.value // 2)
        self._before, self._rest_until = 0.0, now + _HOLD

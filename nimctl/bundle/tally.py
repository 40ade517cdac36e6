"""How far the packing is: bytes of all threads, told twice a second."""

import threading
import time
from collections.abc import Callable

from nimctl.core.fetch import Progress

_EVERY = 0.5  # seconds between two reports


class Tally:
    """Counts towards `total` bytes and tells `on_progress`."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None]) -> None:
        self._total, self._on_progress = total, on_progress
        self._lock = threading.Lock()
        self._done, self._before, self._retries = 0, 0, 0
        self._told, self._begun = 0.0, time.monotonic()
        self.moved = 0  # bytes that were fetched or copied by this run

    def retried(self) -> None:
        """A connection is taken up again."""
        with self._lock:
            self._retries += 1

    def moving(self, count: int) -> None:
        """So many bytes more were fetched or copied."""
        with self._lock:
            if not self.moved:  # what came before the first byte is the other side's time
                self._begun = time.monotonic()
            self._done += count
            self.moved += count
            self._tell()

    def there(self, count: int) -> None:
        """So many bytes more are there, and took this run no time; negative: they are not after all."""
        with self._lock:
            self._done += count
            self._before += count
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _EVERY:
            return
        self._told = now
        spent = now - self._begun
        rate = (self._done - self._before) / spent if spent > _EVERY and self._done > self._before else None
        left = max(0, self._total - self._done)
        self._on_progress(
            Progress(
                min(self._done, self._total),
                self._total,
                rate=rate,
                eta=left / rate if rate and left else None,
                retries=self._retries,
                phase="fetching",
            )
        )

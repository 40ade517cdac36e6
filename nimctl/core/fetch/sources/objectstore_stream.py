"""The bytes of one range out of an object store, for a reader that blocks and may be called off.

The library's answers arrive on an event loop: a wait there can be cancelled, which drops the connection.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from nimctl.core.fetch.protocol import Interrupted

_CHUNK = 2**20  # bytes that the library gathers before it hands them over


class ObjectStream:
    """The bytes of one range. The library works on its own threads; a reader that waits can be called off."""

    def __init__(
        self, opened: Callable[[], Coroutine[Any, Any, Any]], length: int, translated: Callable[[Exception], Exception]
    ) -> None:
        self._translated = translated
        self._left = length
        self._lock = threading.Lock()
        self._waiting: concurrent.futures.Future[Any] | None = None
        self._aborted = False
        self._chunk = memoryview(b"")
        result = self._wait(opened)
        self.meta: Any = result.meta
        self.range: tuple[int, int] = tuple(result.range)
        self._stream: Any = result.stream(min_chunk_size=_CHUNK)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; 0 at the end of the range. Raises `Interrupted`."""
        if not self._left:
            return 0
        if not self._chunk:
            self._chunk = memoryview(self._wait(self._next) or b"")
            if not self._chunk:
                raise Interrupted(f"the connection ended {self._left} bytes early")
        count = min(len(buffer), len(self._chunk), self._left)
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        self._left -= count
        return count

    def abort(self) -> None:
        """Call the waiting reader off; it gets `Interrupted`."""
        with self._lock:
            self._aborted = True
            if self._waiting:
                self._waiting.cancel()

    def close(self) -> None:
        """Drop what was not read, and with it the connection."""
        self.abort()
        self._stream = None
        self._chunk = memoryview(b"")

    async def _next(self) -> Any:
        return await anext(self._stream, None)

    def _wait(self, action: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with self._lock:
            if self._aborted:
                raise Interrupted("the connection stalled and was given up")
            waiting = self._waiting = asyncio.run_coroutine_threadsafe(action(), _loop())
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise Interrupted("the connection stalled and was given up") from None
        except Exception as error:
            raise self._translated(error) from error
        finally:
            self._waiting = None


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one event loop on which the library's answers arrive; it lives as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="nimctl-objectstore", daemon=True).start()
    return loop

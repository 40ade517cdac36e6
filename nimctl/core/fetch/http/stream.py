"""The body of a range, read straight into the caller's buffer."""

import contextlib
import http.client
import socket
import time
from collections.abc import Callable
from typing import Any

import urllib3

from nimctl.core.fetch.http import errors
from nimctl.core.fetch.protocol import Interrupted

_SMALLEST_READ, _LARGEST_READ = 2**14, 2**22  # bytes that are read at once
_QUICK_READ = 0.05  # seconds


class HttpStream:
    """The body of one range. Reads straight into the caller's buffer, without the copies that urllib3 would make."""

    def __init__(self, raw: Any, length: int, drop: Callable[[], None]) -> None:
        """`raw` is urllib3's response, `drop` closes its connection; `length` bytes are expected."""
        self._raw = raw
        self._drop = drop
        self._left = length
        self._step = _SMALLEST_READ * 4
        self._aborted = False
        # urllib3's own `readinto` reads into a buffer of its own and copies. The http.client response below it fills
        # ours, and knows chunks and lengths as well.
        self._body = getattr(raw, "_fp", None) or raw
        self._socket = _socket_of(raw)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; 0 at the end of the range. Raises `Interrupted`."""
        if not self._left:
            return 0
        begun = time.monotonic()
        try:
            count: int = self._body.readinto(buffer[: min(self._left, self._step)])
        except (OSError, http.client.HTTPException, ValueError, AttributeError, urllib3.exceptions.HTTPError) as error:
            raise Interrupted(f"the connection broke: {errors.reason_of(error)}") from error
        if self._aborted:  # what came after the abort may be undecrypted
            raise Interrupted("the connection stalled and was given up")
        if count == 0:
            raise Interrupted(f"the connection ended {self._left} bytes early")
        self._left -= count
        self._adapt(time.monotonic() - begun)
        return count

    def _adapt(self, seconds: float) -> None:
        """The body is read until the buffer is full: much at once is quick, and hides for how long nothing came."""
        if seconds < _QUICK_READ:
            self._step = min(self._step * 2, _LARGEST_READ)
        elif seconds > _QUICK_READ * 4:
            self._step = max(self._step // 2, _SMALLEST_READ)

    def abort(self) -> None:
        """Break the connection; the reader gets `Interrupted`."""
        self._aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown, which would let the reader take encrypted bytes for content.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Keep the connection where the whole body was read, else drop it."""
        if self._left == 0 and not self._aborted and not getattr(self._body, "will_close", True):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                # Not urllib3's `read`, which knows nothing of what `readinto` took and would call the body cut short.
                if self._body.read(1) == b"":  # the end of the chunks, or nothing
                    self._raw.release_conn()
                    return
        self._drop()


def _socket_of(raw: Any) -> socket.socket | None:
    """The socket of a response; http.client takes it from the connection where that ends with the response."""
    found = getattr(getattr(raw, "connection", None), "sock", None)
    if found is None:
        buffered = getattr(getattr(raw, "_fp", None), "fp", None)
        found = getattr(getattr(buffered, "raw", None), "_sock", None)
    return found if isinstance(found, socket.socket) else None

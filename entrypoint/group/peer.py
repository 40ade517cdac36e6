"""One connection between two supervisors."""

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from entrypoint.group import Status, wire

_FAREWELL = 0.5  # seconds for the last words to arrive


class Peer:
    """The other end, on a socket that never blocks. `weights` is the digest of its weights once they are there."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.socket = connection
        self.host = self.name = host
        self.rank: int | None = None
        self.weights: str | None = None
        self.status = Status()
        self.heard = time.monotonic()
        self.gone = False
        self._reader = wire.Reader()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def where(self) -> str:
        """The stage it is in, such as `weights, 12 of 554 GB`."""
        return ", ".join(word for word in (self.status.stage, self.status.detail) if word) or "starting"

    @property
    def idle(self) -> float:
        """Seconds for which nothing moved there."""
        return self.status.idle + time.monotonic() - self.heard

    def receive(self) -> list[dict[str, Any]]:
        """What it has said. Raises OSError when the connection has ended, WireError for nonsense."""
        try:
            data = self.socket.recv(wire.LONGEST)
        except (BlockingIOError, InterruptedError):
            return []
        if not data:
            raise ConnectionResetError("closed by the other end")
        self.heard = time.monotonic()
        return self._reader.feed(data)

    def send(self, message: bytes) -> None:
        """Say something. Raises OSError when it is not taken at once: who reads nothing is not there."""
        if self.socket.send(message) != len(message):
            raise BlockingIOError("what was said before has not been read")


def leave(sockets: Sequence[socket.socket], *, patient: bool = True) -> None:
    """Hang up so that the last words arrive: a socket that is closed with something unread takes them back."""
    left = []
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_WR)
            left.append(one)
    deadline = time.monotonic() + (_FAREWELL if patient else 0.0)
    while left and (remaining := deadline - time.monotonic()) > 0:
        for one in select.select(left, [], [], remaining)[0]:
            try:
                ended = not one.recv(wire.LONGEST)
            except OSError:
                ended = True
            if ended:
                left.remove(one)
    for one in sockets:
        one.close()

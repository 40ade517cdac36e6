"""The HTTP/1.1 side of a listener: reads requests, and sends replies exactly as well or as badly as they say."""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from tests.lib.fault_hub.content import chunks
from tests.lib.fault_hub.ledger import Ledger
from tests.lib.fault_hub.messages import Links, Reply, Request
from tests.lib.fault_hub.rules import Rules
from tests.lib.fault_hub.sockets import reset

Route = Callable[[Request], Reply]


class Gate:
    """Where stalled replies wait: until released, until some seconds are over, or until the hub closes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._generation = 0
        self._closed = False

    def wait(self, seconds: float | None) -> bool:
        """Whether the hub is still open afterwards."""
        with self._changed:
            now = self._generation
            self._changed.wait_for(lambda: self._closed or self._generation != now, seconds)
            return not self._closed

    def pause(self, seconds: float) -> bool:
        """Sleep; whether the hub is still open afterwards."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._closed, seconds)

    def release(self) -> None:
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _ConnectionOverError(ConnectionError):
    """The reply ends here and so does the connection."""


class Service:
    """What all listeners of a hub share: routes, rules, ledger and gate."""

    def __init__(self, route: Route, links: Links, rules: Rules, ledger: Ledger, gate: Gate) -> None:
        self.route, self.links, self.rules, self.ledger, self.gate = route, links, rules, ledger, gate

    def serve(self, listener: str, connection: socket.socket, peer: str) -> None:
        """Answer the requests of one connection until it ends."""
        _Handler(connection, peer, cast(Any, (self, listener)))

    def answer(self, request: Request, connection: socket.socket) -> bool:
        """Answer one request; whether the connection may be used again."""
        number = self.ledger.opened(request)
        try:
            reply, faults = self.rules.shape(request, self.route(request))
            self.ledger.answered(number, reply, faults)
            self._send(number, request, reply, connection)
        except _ConnectionOverError:
            return False
        finally:
            self.ledger.finished(number)
        return True

    def _send(self, number: int, request: Request, reply: Reply, connection: socket.socket) -> None:
        wire = reply.wire
        if wire.stall_after == -1:
            self._stall(number, wire.stall_seconds)
        if wire.silent:
            reset(connection)
            raise _ConnectionOverError
        connection.sendall(_head(reply))
        if request.method != "HEAD":
            self._send_body(number, reply, connection)
        if wire.cut_after is not None:
            if wire.reset:
                reset(connection)
            raise _ConnectionOverError

    def _send_body(self, number: int, reply: Reply, connection: socket.socket) -> None:
        wire = reply.wire
        limit = reply.length + wire.extra if wire.cut_after is None else wire.cut_after
        sent = 0
        for piece in _pieces(reply):
            rest = memoryview(piece)[: limit - sent]
            while rest:
                if wire.stall_after is not None and sent == wire.stall_after:
                    self._stall(number, wire.stall_seconds)
                upto = len(rest)
                if wire.stall_after is not None and sent < wire.stall_after:
                    upto = min(upto, wire.stall_after - sent)
                if wire.rate is not None:
                    upto = min(upto, max(1, int(wire.rate / 20)))
                count = self._send_some(number, connection, rest[:upto])
                sent += count
                rest = rest[count:]
                if wire.rate is not None and not self.gate.pause(count / wire.rate):
                    raise _ConnectionOverError
            if sent >= limit:
                return

    def _send_some(self, number: int, connection: socket.socket, data: memoryview) -> int:
        """Wait until the kernel takes some of it; how much."""
        connection.setblocking(False)
        try:
            while True:
                try:
                    return self.ledger.sending(number, lambda: connection.send(data))
                except (BlockingIOError, ssl.SSLWantWriteError):
                    select.select([], [connection], [])
                except ssl.SSLWantReadError:
                    select.select([connection], [], [])
        finally:
            connection.setblocking(True)

    def _stall(self, number: int, seconds: float | None) -> None:
        self.ledger.stalled(number, True)
        if not self.gate.wait(seconds):
            raise _ConnectionOverError
        self.ledger.stalled(number, False)


def _pieces(reply: Reply) -> Iterator[bytes]:
    yield from chunks(reply.source, reply.start, reply.length)
    if reply.wire.extra:
        yield b"!" * reply.wire.extra


def _head(reply: Reply) -> bytes:
    phrases = {status.value: status.phrase for status in HTTPStatus}
    first = f"HTTP/1.1 {reply.status} {phrases.get(reply.status, 'Unknown')}\r\n".encode()
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in {"Date": formatdate(usegmt=True), **reply.headers}.items()
    )
    return (reply.wire.first_line or first) + lines.encode("latin-1") + reply.wire.extra_header + b"\r\n"


class _Handler(BaseHTTPRequestHandler):
    """Only the reading of requests is taken from the standard library; replies are sent by Service."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        service, listener = self.server
        with contextlib.suppress(ValueError):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(listener, self.command, self.path, headers, str(self.client_address), service.links)
        if not service.answer(request, self.connection):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (the handler's protocol)

    def log_message(self, *args: Any) -> None:
        pass

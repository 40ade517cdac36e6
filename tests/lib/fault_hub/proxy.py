"""A forward proxy on loopback: CONNECT and absolute-form requests, with a ledger of its own."""

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import urlsplit

from tests.lib.fault_hub.sockets import Acceptor

Mode = Literal["works", "refuses", "credentials"]
USER, PASSWORD = "proxy-user", "proxy-pass-canary"


@dataclass(frozen=True)
class Passage:
    """One request to the proxy. Inside a tunnel nothing but its bytes is seen."""

    method: str
    target: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    up: int = 0
    down: int = 0


class ForwardProxy:
    """Works, refuses everything (403), or asks for credentials (407). `hosts` maps names to loopback addresses."""

    def __init__(
        self, mode: Mode = "works", *, host: str = "127.0.0.1", hosts: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.mode: Mode = mode
        self._hosts = dict(hosts or {})
        self._passages: list[Passage] = []
        self._lock = threading.Lock()
        self._outgoing: set[socket.socket] = set()
        self._acceptor = Acceptor(host, self._serve)
        self.url = f"http://{host}:{self._acceptor.port}"
        self.url_with_credentials = f"http://{USER}:{PASSWORD}@{host}:{self._acceptor.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            for connection in self._outgoing:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.close()

    @property
    def passages(self) -> list[Passage]:
        """All requests so far, oldest first; a tunnel's bytes are counted as they pass."""
        with self._lock:
            return list(self._passages)

    def _serve(self, connection: socket.socket, peer: str) -> None:
        _Handler(connection, peer, cast(Any, self))

    def verdict(self, headers: Mapping[str, str]) -> int:
        """The status that a request gets before anything is passed on; 200: it may pass."""
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.mode == "refuses":
            return 403
        return 407 if self.mode == "credentials" and headers.get("proxy-authorization") != wanted else 200

    def note(self, passage: Passage) -> int:
        with self._lock:
            self._passages.append(passage)
            return len(self._passages) - 1

    def passed(self, number: int, *, up: int = 0, down: int = 0) -> None:
        with self._lock:
            old = self._passages[number]
            self._passages[number] = replace(old, up=old.up + up, down=old.down + down)

    def reach(self, host: str, port: int) -> socket.socket:
        """A connection to where a request wants to go."""
        place = self._hosts.get(host, (host, port))
        connection = socket.create_connection(place, timeout=20)
        connection.settimeout(None)
        with self._lock:
            self._outgoing.add(connection)
        return connection

    def leave(self, connection: socket.socket) -> None:
        with self._lock:
            self._outgoing.discard(connection)
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection to the proxy; it serves one request, so that nothing is guessed about what follows."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        self._pass(host, int(port), None)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.scheme != "http" or parts.hostname is None:
            self._refuse(400, None)
            return
        where = parts.path + (f"?{parts.query}" if parts.query else "")
        hidden = ("proxy-authorization", "proxy-connection", "connection")
        kept = [f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() not in hidden]
        head = f"{self.command} {where} HTTP/1.1\r\n{''.join(kept)}Connection: close\r\n\r\n"
        self._pass(parts.hostname, parts.port or 80, head.encode("latin-1"))

    do_HEAD = do_POST = do_GET  # noqa: N815 (the handler's protocol)

    def _pass(self, host: str, port: int, first: bytes | None) -> None:
        proxy: ForwardProxy = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = proxy.verdict(headers)
        self.close_connection = True
        number = proxy.note(Passage(self.command, self.path, status, headers))
        if status != 200:
            self._refuse(status, 'Basic realm="fault hub"' if status == 407 else None)
            return
        try:
            far = proxy.reach(host, port)
        except OSError:
            self._refuse(502, None)
            return
        try:
            if first is None:
                self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far.sendall(first)
                proxy.passed(number, up=len(first))
            _pump(proxy, number, self.connection, far)
        finally:
            proxy.leave(far)

    def _refuse(self, status: int, challenge: str | None) -> None:
        lines = f"Proxy-Authenticate: {challenge}\r\n" if challenge else ""
        text = f"HTTP/1.1 {status} The proxy says no\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n"
        self.close_connection = True
        self.connection.sendall(text.encode("ascii"))

    def log_message(self, *args: Any) -> None:
        pass


def _pump(proxy: ForwardProxy, number: int, near: socket.socket, far: socket.socket) -> None:
    """Bytes both ways until either side ends."""
    while True:
        ready, _, _ = select.select([near, far], [], [])
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            if source is near:
                far.sendall(data)
                proxy.passed(number, up=len(data))
            else:
                near.sendall(data)
                proxy.passed(number, down=len(data))

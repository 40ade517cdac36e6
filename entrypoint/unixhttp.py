"""Small HTTP/1.1 client calls on the engine's Unix socket and on our own public port."""

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

# No answer that we ask for ourselves is larger: model lists, counters, completions of a few tokens.
_LARGEST_ANSWER = 4 * 2**20


class UnreachableError(Exception):
    """Nobody answered: refused, closed, or not in time."""


@dataclass(frozen=True)
class Answer:
    """Status code and body of a response."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON, or None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Abort:
    """Ends one call from another thread: whoever waits for its answer gets UnreachableError at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._wanted = False

    def __call__(self) -> None:
        """End the call, now or as soon as it begins."""
        with self._lock:
            self._wanted = True
            if self._socket is not None:
                with suppress(OSError):  # it is over already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, connected: socket.socket) -> None:
        """This is the socket on which the call waits."""
        with self._lock:
            self._socket = connected
            if self._wanted:
                raise UnreachableError("given up")


class _UnixConnection(HTTPConnection):
    """http.client over a Unix socket: the one thing that it does not know is where to connect."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get_unix(path: Path, url: str, *, timeout: float = 5.0) -> Answer:
    """GET `url` from the server on a Unix socket. Raises UnreachableError."""
    return _ask(_UnixConnection(path, timeout), "GET", url, None, {})


def get_tcp(host: str, port: int, url: str, *, timeout: float = 5.0) -> Answer:
    """GET `url` from our own front; `host` may be `unix:` and a path (see `front.Front`). Raises UnreachableError."""
    return _ask(_connection(host, port, timeout), "GET", url, None, {})


def post_tcp(
    host: str,
    port: int,
    url: str,
    document: Any,
    *,
    headers: dict[str, str],
    timeout: float,
    abort: Abort | None = None,
) -> Answer:
    """POST a JSON document to our own front; `abort` ends it from another thread. Raises UnreachableError."""
    body = json.dumps(document).encode()
    connection = _connection(host, port, timeout)
    return _ask(connection, "POST", url, body, {"Content-Type": "application/json", **headers}, abort=abort)


def _connection(host: str, port: int, timeout: float) -> HTTPConnection:
    if host.startswith("unix:"):
        return _UnixConnection(Path(host.removeprefix("unix:")), timeout)
    return HTTPConnection(host, port, timeout=timeout)


def _ask(
    connection: HTTPConnection,
    method: str,
    url: str,
    body: bytes | None,
    headers: dict[str, str],
    *,
    abort: Abort | None = None,
) -> Answer:
    try:
        if abort is not None:
            connection.connect()
            abort.watch(connection.sock)
        connection.request(method, url, body, {"Connection": "close", **headers})
        response = connection.getresponse()
        return Answer(response.status, response.read(_LARGEST_ANSWER))
    except (OSError, HTTPException) as error:
        raise UnreachableError(str(error) or type(error).__name__) from error
    finally:
        connection.close()

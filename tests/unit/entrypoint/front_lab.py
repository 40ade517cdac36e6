"""The real nginx with the front's configuration and a small engine that tells what reaches it: a tenth of a second."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from entrypoint.front import Front, command, find_nginx, prepare
from entrypoint.state import State, open_state
from tests.unit.entrypoint.service import Response, free_port, until

TOKEN = "0123456789abcdef" * 4


@dataclass
class Asked:
    """One request as the engine saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Engine"

    def address_string(self) -> str:
        return "front"

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(Asked(self.command, self.path, list(self.headers.items()), body))
        status, kind, text = self.server.answers.get(self.path, (200, "application/json", '{"engine":true}'))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Request-Id", "the engine's own")
        self.send_header("Access-Control-Allow-Origin", "the engine's own")
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815 (http.server's names)


class _Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.asked: list[Asked] = []
        self.answers: dict[str, tuple[int, str, str]] = {
            "/metrics": (200, "text/plain; version=0.0.4; charset=utf-8", "vllm:up 1\n")
        }

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("front", 0)


@dataclass
class Lab:
    """A running front: `ask` is HTTP, `raw` is bytes, `asked` what the engine got."""

    front: Front
    state: State
    process: subprocess.Popen[bytes] | None = None
    engine: _Engine | None = None
    context: Any = None
    log: list[str] = field(default_factory=list)

    @property
    def asked(self) -> list[Asked]:
        assert self.engine is not None
        return self.engine.asked

    def connection(self, port: int | None = None) -> http.client.HTTPConnection:
        if self.context is not None and port is None:
            return http.client.HTTPSConnection("localhost", self.front.port, timeout=20, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", port or self.front.port, timeout=20)

    def ask(self, method: str, path: str, body: Any = None, *, port: int | None = None, **headers: str) -> Response:
        """One request; `content_type` in `headers` is `Content-Type`."""
        connection = self.connection(port)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, raw, named)
            answer = connection.getresponse()
            seen: dict[str, str] = {}
            for name, value in answer.getheaders():
                key = name.lower()
                seen[key] = f"{seen[key]} && {value}" if key in seen else value  # a header twice is seen as such
            return Response(answer.status, seen, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        return self.ask("GET", path, **headers)

    def chat(self, **headers: str) -> Response:
        return self.ask("POST", "/v1/chat/completions", {"model": "m"}, Content_Type="application/json", **headers)

    def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes: one answer, or what there is of it when the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.front.port), timeout=20) as wire:
            wire.sendall(request)
            got = b""
            while chunk := wire.recv(65536):
                got += chunk
                head, end, body = got.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                if end and length and len(body) >= int(length[1]):
                    break
            return got

    def lose_engine(self) -> None:
        assert self.engine is not None
        self.engine.shutdown()
        self.engine.server_close()
        self.state.engine_socket.unlink()


@contextmanager
def lab(*, ready: bool = True, context: Any = None, **more: Any) -> Iterator[Lab]:
    """A front with these fields of `Front`, its engine, and `ready` as it should be."""
    place = Path(tempfile.mkdtemp(prefix="nimctl-front-"))
    state = open_state(place / "s")
    front = replace(Front("127.0.0.1", free_port(), TOKEN), **more)
    if front.tls is not None:
        front = replace(front, way_in=state.public_socket)
    one = Lab(front, state, context=context)
    (state.public / "refusal.json").write_text('{"error":{"message":"starting","type":"x","param":null,"code":503}}')
    (state.public / "unready.json").write_text('{"status":"unavailable"}')
    (state.public / "startup.json").write_text('{"state":"starting"}')
    (state.public / "version.json").write_text('{"release":"1"}')
    if ready:
        state.ready.touch()
    try:
        one.engine = _Engine(state.engine_socket)
        threading.Thread(target=one.engine.serve_forever, args=(0.02,), daemon=True).start()
        prepare(front, state, cpus=1, log_level="INFO")
        argv = command(find_nginx(os.environ["PATH"]), state)
        with (place / "log").open("wb") as log:
            one.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=place)
        until(lambda: _listens(one))
        yield one
        one.log.append((place / "log").read_text())
    finally:
        if one.process is not None:
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(10)
        if one.engine is not None:
            one.engine.shutdown()
            one.engine.server_close()
        shutil.rmtree(place, ignore_errors=True)


def _listens(one: Lab) -> bool:
    assert one.process is not None
    assert one.process.poll() is None, (one.state.root.parent / "log").read_text()
    with suppress(OSError), socket.create_connection(("127.0.0.1", one.front.port), timeout=1):
        return True
    time.sleep(0.005)
    return False

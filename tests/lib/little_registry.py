"""A registry with a token service on loopback, whose every answer a test can choose."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
USER = "$oauthtoken"
TOKEN = "token-of-the-little-registry"


@dataclass(frozen=True)
class Answer:
    """What is sent back; `hang` sends nothing until the registry is closed."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


def errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    authorization: str | None
    body: bytes
    accept: str | None

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)


@dataclass
class LittleRegistry:
    """`ping`, `token` and `manifest` answer a request; where they are None, the answer is as it should be."""

    port: int
    key: str = "nvapi-canary-0123456789"
    challenge: str | None = None
    ping: Callable[[Seen], Answer] | None = None
    token: Callable[[Seen], Answer] | None = None
    manifest: Callable[[Seen], Answer] | None = None
    seen: list[Seen] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    # what `manifests/<key>` and `blobs/<key>` hold: media type and bytes
    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{USER}:{self.key}".encode()).decode()

    def answer(self, request: Seen) -> Answer:
        path = urlsplit(request.path).path
        if path == "/v2/":
            return (self.ping or self.good_ping)(request)
        if path == "/token":
            return (self.token or self.good_token)(request)
        if "/manifests/" in path:
            return (self.manifest or self.good_manifest)(request)
        if "/blobs/" in path:
            return self.good_manifest(request)
        return Answer(404)

    def good_ping(self, request: Seen) -> Answer:
        if request.authorization == f"Bearer {TOKEN}":
            return Answer()
        challenge = self.challenge or f'Bearer realm="http://{self.address}/token",service="little"'
        if challenge.startswith("Basic") and request.authorization == self.basic:
            return Answer()
        return Answer(401, errors("UNAUTHORIZED", "authentication required"), {"WWW-Authenticate": challenge})

    def good_token(self, request: Seen) -> Answer:
        if request.authorization not in (None, self.basic):
            return Answer(401, errors("UNAUTHORIZED", "wrong key"))
        return Answer(200, json.dumps({"token": TOKEN}).encode())

    def good_manifest(self, request: Seen) -> Answer:
        if request.authorization != f"Bearer {TOKEN}":
            return self.good_ping(request)
        if not self.content:
            return Answer(200, MANIFEST, {"Docker-Content-Digest": DIGEST, "Content-Type": MEDIA_TYPE})
        found = self.content.get(urlsplit(request.path).path.rpartition("/")[2])
        if found is None:
            return Answer(404, errors("MANIFEST_UNKNOWN", "manifest unknown"))
        kind, body = found
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        return Answer(200, body, {"Content-Type": kind, "Docker-Content-Digest": digest})


@contextmanager
def little_registry() -> Iterator[LittleRegistry]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    registry = LittleRegistry(server.server_address[1])
    server.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        registry.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        registry: LittleRegistry = self.server.registry  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Seen(self.command, self.path, self.headers.get("Authorization"), body, self.headers.get("Accept"))
        registry.seen.append(request)
        answer = registry.answer(request)
        if answer.hang:
            registry.closing.wait(60)
            return
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the handler's protocol)

    def log_message(self, *args: Any) -> None:
        pass

"""A registry in memory that anyone may push to and pull from, with or without the referrers API of OCI 1.1.

`lies` replaces the answer to a path and `links` its Link, `uploads` is where it sends bytes; `seen` are the
requests, as `GET /v2/...`.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class MemoryRegistry:
    port: int = 0
    referrers: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # repository/reference: media type, bytes
    lies: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    uploads: str | None = None
    seen: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, repository: str, document: dict[str, Any], tag: str | None = None) -> str:
        """Have a manifest there; returns its digest."""
        body = json.dumps(document).encode()
        digest = digest_of(body)
        for reference in (digest, tag) if tag else (digest,):
            self.manifests[f"{repository}/{reference}"] = (document["mediaType"], body)
        return digest

    def image(self, repository: str, tag: str | None = None, architecture: str = "amd64") -> str:
        """Have a small image there; returns its digest."""
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers"}}).encode()
        self.blobs[digest_of(config)] = config
        about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config)}
        media_type = "application/vnd.oci.image.manifest.v1+json"
        document = {"schemaVersion": 2, "mediaType": media_type, "config": {**about, "size": len(config)}, "layers": []}
        return self.put(repository, document, tag)

    def index(self, repository: str, manifests: dict[str, str], tag: str | None = None) -> str:
        """Have an index of `manifests` (architecture -> digest) there; returns its digest."""
        entries = [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": len(self.manifests[f"{repository}/{digest}"][1]),
                "platform": {"os": "linux", "architecture": architecture},
            }
            for architecture, digest in manifests.items()
        ]
        return self.put(repository, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, tag)

    def referring(self, repository: str, subject: str) -> bytes:
        """The list of what names `subject`, as the referrers API gives it."""
        found = []
        for name, (media_type, body) in self.manifests.items():
            document = json.loads(body)
            if name == f"{repository}/{digest_of(body)}" and document.get("subject", {}).get("digest") == subject:
                entry = {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}
                about = {key: document[key] for key in ("artifactType", "annotations") if key in document}
                found.append({**entry, **about})
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextmanager
def memory_registry(*, referrers: bool = True) -> Iterator[MemoryRegistry]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    registry = MemoryRegistry(server.server_address[1], referrers)
    server.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        registry: MemoryRegistry = self.server.registry  # type: ignore[attr-defined]
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        registry.seen.append(f"{self.command} {path}")
        if path in registry.lies:
            link = registry.links.get(path)
            self._send(*registry.lies[path], {"Link": link} if link else {})
            return
        repository, kind, reference = _split(path)
        if path == "/v2/":
            self._send(200)
        elif kind == "manifests" and self.command == "PUT":
            digest = digest_of(data)
            for name in {digest, reference}:
                registry.manifests[f"{repository}/{name}"] = (self.headers["Content-Type"], data)
            knows = registry.referrers and "subject" in json.loads(data)
            self._send(201, b"", {"OCI-Subject": "yes"} if knows else {})
        elif kind == "manifests":
            media_type, body = registry.manifests.get(f"{repository}/{reference}", ("", b""))
            headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(body)} if body else {}
            self._send(200 if body else 404, body, headers)
        elif kind == "referrers":
            self._send(200, registry.referring(repository, reference)) if registry.referrers else self._send(404)
        elif kind == "uploads" and self.command == "POST":
            self._send(202, b"", {"Location": registry.uploads or f"/v2/{repository}/blobs/uploads/one?state=x"})
        elif kind == "uploads":
            digest = parse_qs(urlsplit(self.path).query)["digest"][0]
            good = digest == digest_of(data)
            if good:
                registry.blobs[digest] = data
            self._send(201 if good else 400)
        else:
            self._send(200 if reference in registry.blobs else 404, registry.blobs.get(reference, b""))

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815 (the handler's protocol)

    def log_message(self, *args: Any) -> None:
        pass


def _split(path: str) -> tuple[str, str, str]:
    """`/v2/a/b/manifests/x` as `a/b`, `manifests`, `x`."""
    parts = path.strip("/").split("/")
    for kind in ("manifests", "referrers", "uploads", "blobs"):
        if kind in parts[1:]:
            at = parts.index(kind)
            repository = parts[1 : at - 1] if kind == "uploads" else parts[1:at]
            return "/".join(repository), kind, "/".join(parts[at + 1 :])
    return "", "", ""

"""What clients of the lab's registry talk to: the token service and a proxy to docker-registry. Run as a script.

`GET /proxy_auth` is the token service, named as nvcr.io names it. `/v2/...` goes to docker-registry on its Unix socket,
which itself demands and verifies the tokens (RS256 with an x5c header, signed by the openssl command: the standard
library cannot sign). Where a repository is in a situation (see registry.py), its manifest is answered with that error.
Response bodies have the shape that nvcr.io uses: https://github.com/NVlabs/alpasim/issues/44 shows the 403.
"""

import base64
import binascii
import fnmatch
import http.client
import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER = "$oauthtoken"
SERVICE = "nimctl-lab"
CHUNK = 1 << 20
TOKEN_SECONDS = 300
# situation -> status, error code and message of the manifest request
REFUSALS = {
    "payment-required": (402, "PAYMENT_REQUIRED", "Payment Required"),
    "terms": (403, "DENIED", "Access Denied"),
    "rate-limited": (429, "TOOMANYREQUESTS", "Too Many Requests"),
    "unavailable": (503, "UNAVAILABLE", "Service Unavailable"),
}
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host"}
_MANIFEST = re.compile(r"/v2/(.+)/manifests/[^/]+")


class Front:
    """The configuration file, read at every use: tests change it while the server runs."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self._file.read_text())
        return config

    def situation(self, repository: str) -> str:
        rules = self.config()["repositories"]
        return next(str(situation) for pattern, situation in rules if fnmatch.fnmatchcase(repository, pattern))

    def token(self, subject: str, access: list[dict[str, Any]]) -> str:
        """A signed JWT for docker-registry (https://distribution.github.io/distribution/spec/auth/jwt/)."""
        config, now = self.config(), int(time.time())
        certificate = ssl.PEM_cert_to_DER_cert(Path(config["certificate"]).read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        when = {"iat": now, "nbf": now - 10, "exp": now + TOKEN_SECONDS}
        who = {"iss": SERVICE, "aud": SERVICE, "sub": subject, "jti": secrets.token_hex(8)}
        claims = {**who, **when, "access": access}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", config["signing_key"]]
        signature = subprocess.run(argv, input=signed, capture_output=True, check=True, timeout=10).stdout
        return (signed + b"." + _base64url(signature)).decode()


class Handler(BaseHTTPRequestHandler):
    """One connection of a client. `server.front` holds the configuration."""

    protocol_version = "HTTP/1.1"
    front: Front

    def handle(self) -> None:
        # A Go server answers TLS so, and Docker over containerd's store tries plain HTTP only after this answer.
        if self.rfile.peek(1)[:1] == b"\x16":  # the first byte of every TLS handshake
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            return
        super().handle()

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path == "/proxy_auth":
            self._give_token(parse_qs(target.query).get("scope", []))
        else:
            self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD  # noqa: N815 (the handler's protocol)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        sys.stderr.write(f"{self.command} {self.path.partition('?')[0]} {args[1] if len(args) > 1 else ''}\n")

    def _give_token(self, scopes: list[str]) -> None:
        header = self.headers.get("Authorization")
        if header is not None and not self._key_accepted(header):
            self._refuse(401, "UNAUTHORIZED", "authentication required")
            return
        access = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            public = kind == "repository" and self.front.situation(name) == "open"
            granted = actions.split(",") if header is not None else ["pull"] if public else []
            if not granted:
                self._refuse(403, "DENIED", "Access Denied")
                return
            access.append({"type": kind, "name": name, "actions": granted})
        token = self.front.token(USER if header is not None else "", access)
        self._answer(200, {"token": token, "expires_in": TOKEN_SECONDS})

    def _key_accepted(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        try:
            user, _, key = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return scheme == "Basic" and user == USER and secrets.compare_digest(key, self.front.config()["key"])

    def _forward(self) -> None:
        manifest = _MANIFEST.fullmatch(urlsplit(self.path).path)
        if manifest and self.command in ("GET", "HEAD") and "Authorization" in self.headers:
            refusal = REFUSALS.get(self.front.situation(manifest[1]))
            if refusal:
                self._refuse(*refusal)
                return
        upstream = http.client.HTTPConnection("127.0.0.1")
        upstream.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            upstream.sock.connect(self.front.config()["upstream"])
            self._send_request(upstream)
            self._relay(upstream.getresponse())
        finally:
            upstream.close()

    def _send_request(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        upstream.putheader("Host", self.headers["Host"])
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                upstream.putheader(name, value)
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if chunked:
            upstream.putheader("Transfer-Encoding", "chunked")
        upstream.endheaders()
        if not chunked:
            self._copy(int(self.headers.get("Content-Length", 0)), upstream.send)
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            upstream.send(b"%x\r\n" % size)
            self._copy(size, upstream.send)
            upstream.send(self.rfile.readline())
        upstream.send(b"0\r\n" + self.rfile.readline())

    def _copy(self, size: int, send: Any) -> None:
        while size > 0:
            block = self.rfile.read(min(CHUNK, size))
            if not block:
                raise ConnectionError("the client went away")
            send(block)
            size -= len(block)

    def _relay(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if response.getheader("Content-Length") is None and response.status not in (204, 304):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.log_request(response.status)
        while block := response.read(CHUNK):
            self.wfile.write(block)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.close_connection = True  # a body may not have been read
        self._answer(status, {"errors": [{"code": code, "message": message}]})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def main(config_file: Path) -> None:
    Handler.front = Front(config_file)
    server = ThreadingHTTPServer(("127.0.0.1", Handler.front.config()["port"]), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

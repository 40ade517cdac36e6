"""What clients of the lab's registry talk to: the token service and a proxy to docker-registry. Run as a script.

`GET /proxy_auth` is the token service, named as nvcr.io names it. `/v2/...` goes to docker-registry on its Unix socket,
which itself demands and verifies the tokens (RS256 with an x5c header, signed by the openssl command: the standard
library cannot sign). Where a repository is in a situation (see registry.py), its manifest is answered with that error;
where a fault is set for it (see faults.py), its blobs are cut, slowed, changed or refused, or a tag is another image's.
`GET /lab/served` says what was asked for and sent, by repository.
Response bodies have the shape that nvcr.io uses: https://github.com/NVlabs/alpasim/issues/44 shows the 403.
"""

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import http.client
import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER = "$oauthtoken"
SERVICE = "nimctl-lab"
CHUNK = 1 << 20
TOKEN_SECONDS = 300
STALL_SECONDS = 300
# Who logs in as this user gets an identity token, and shows that from then on, as at Azure's registries:
# https://distribution.github.io/distribution/spec/auth/oauth/
IDENTITY_USER = "identity"
# situation -> by how many seconds the clock of the token service is wrong, for tokens of these repositories
SHIFTS = {"early": 7200, "late": -7200, "renewed": -7200}
UNKNOWN_KIND = "application/vnd.nimctl-lab.thing.v7+json"
# situation -> status, error code and message of the manifest request
REFUSALS = {
    "payment-required": (402, "PAYMENT_REQUIRED", "Payment Required"),
    "terms": (403, "DENIED", "Access Denied"),
    "organisation": (403, "DENIED", "Access Denied"),
    "rate-limited": (429, "TOOMANYREQUESTS", "Too Many Requests"),
    "unavailable": (503, "UNAVAILABLE", "Service Unavailable"),
}
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host"}
_OBJECT = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/]+)")
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

    def token(self, subject: str, access: list[dict[str, Any]], shift: int = 0) -> str:
        """A signed JWT for docker-registry (https://distribution.github.io/distribution/spec/auth/jwt/)."""
        config, now = self.config(), int(time.time()) + shift
        certificate = ssl.PEM_cert_to_DER_cert(Path(config["certificate"]).read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        when = {"iat": now, "nbf": now - 10, "exp": now + TOKEN_SECONDS}
        who = {"iss": SERVICE, "aud": SERVICE, "sub": subject, "jti": secrets.token_hex(8)}
        claims = {**who, **when, "access": access}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", config["signing_key"]]
        signature = subprocess.run(argv, input=signed, capture_output=True, check=True, timeout=10).stdout
        return (signed + b"." + _base64url(signature)).decode()


class Ledger:
    """What was served since the start, and how often each fault has struck. Shared by the handlers' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: dict[str, Counter[str]] = {}
        self._asked: Counter[str] = Counter()

    def add(self, repository: str, what: str, amount: int = 1) -> None:
        with self._lock:
            self._served.setdefault(repository, Counter())[what] += amount

    def document(self) -> dict[str, dict[str, int]]:
        with self._lock:
            return {repository: dict(counts) for repository, counts in self._served.items()}

    def strikes(self, fault: dict[str, Any]) -> bool:
        """Whether this request, which the fault is meant for, is one of those it strikes: `after`, then `times`."""
        with self._lock:
            self._asked[fault["id"]] += 1
            number = self._asked[fault["id"]] - int(fault["after"])
        return number > 0 and (fault["times"] is None or number <= fault["times"])


class Handler(BaseHTTPRequestHandler):
    """One connection of a client. `server.front` holds the configuration."""

    protocol_version = "HTTP/1.1"
    front: Front
    ledger: Ledger

    def handle(self) -> None:
        # A Go server answers TLS so, and Docker over containerd's store tries plain HTTP only after this answer.
        if self.rfile.peek(1)[:1] == b"\x16":  # the first byte of every TLS handshake
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            return
        super().handle()

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path == "/proxy_auth":
            asked = parse_qs(target.query)
            self._give_token(asked.get("scope", []), offline="offline_token" in asked)
        elif target.path == "/lab/served":
            self._answer(200, self.ledger.document())
        else:
            self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        if self.path != "/proxy_auth":
            self._forward()
            return
        asked = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        if asked.get("refresh_token") != [self._identity_token()]:
            self._refuse(401, "UNAUTHORIZED", "authentication required")
            return
        self._give_token(asked.get("scope", []), user=IDENTITY_USER)

    do_PUT = do_PATCH = do_DELETE = do_HEAD  # noqa: N815 (the handler's protocol)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        sys.stderr.write(f"{self.command} {self.path.partition('?')[0]} {args[1] if len(args) > 1 else ''}\n")

    def _give_token(self, scopes: list[str], *, offline: bool = False, user: str = "") -> None:
        header = self.headers.get("Authorization")
        if header is not None:
            user = self._accepted(header)
        if header is not None and not user:
            self._refuse(401, "UNAUTHORIZED", "authentication required")
            return
        access, shift = [], 0
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            situation = self.front.situation(name) if kind == "repository" else ""
            granted = actions.split(",") if user else ["pull"] if situation == "open" else []
            if not granted:
                self._refuse(403, "DENIED", "Access Denied")
                return
            if actions == "pull":  # situations are about pulling
                shift = self._shift(name, situation)
                granted = [] if situation == "hidden" else granted
            access.append({"type": kind, "name": name, "actions": granted})
        token = {"token": self.front.token(user, access, shift), "expires_in": TOKEN_SECONDS}
        token["access_token"] = token["token"]  # the name of the same in answers to POST
        if offline and user == IDENTITY_USER:
            token["refresh_token"] = self._identity_token()
        self._answer(200, token)

    def _shift(self, repository: str, situation: str) -> int:
        if situation == "renewed":  # every second token is good
            counted = f"tokens of {repository}"
            self.ledger.add(counted, "given")
            return SHIFTS[situation] if self.ledger.document()[counted]["given"] % 2 else 0
        return SHIFTS.get(situation, 0)

    def _accepted(self, header: str) -> str:
        """The user whose key this is, empty for nobody."""
        scheme, _, encoded = header.partition(" ")
        try:
            user, _, key = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        good = user in (USER, IDENTITY_USER) and secrets.compare_digest(key, self.front.config()["key"])
        return user if scheme == "Basic" and good else ""

    def _identity_token(self) -> str:
        return hashlib.sha256(self.front.config()["key"].encode()).hexdigest()

    def _is_answered(self, repository: str) -> bool:
        """Answer a manifest request as the situation of its repository has it; False where it has none."""
        situation = self.front.situation(repository)
        if situation in REFUSALS:
            self._refuse(*REFUSALS[situation], **({"Retry-After": "30"} if situation == "rate-limited" else {}))
        elif situation == "unknown-kind":
            self._answer(200, {"schemaVersion": 2, "mediaType": UNKNOWN_KIND}, **{"Content-Type": UNKNOWN_KIND})
        elif situation == "slow":
            self.close_connection = True
            self.connection.settimeout(STALL_SECONDS)
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # until the client gives up
        else:
            return False
        return True

    def _forward(self) -> None:
        manifest = _MANIFEST.fullmatch(urlsplit(self.path).path)
        shown = self.command in ("GET", "HEAD") and "Authorization" in self.headers
        if manifest and shown and self._is_answered(manifest[1]):
            return
        fault = self._fault()
        if fault.get("status"):
            self._refuse(fault["status"], "UNKNOWN", "a fault of the lab")
            return
        if fault.get("swap"):
            self.path = f"{self.path.rpartition('/')[0]}/{fault['swap']}"
        upstream = http.client.HTTPConnection("127.0.0.1")
        upstream.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            upstream.sock.connect(self.front.config()["upstream"])
            self._send_request(upstream)
            self._relay(upstream.getresponse(), fault)
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

    def _fault(self) -> dict[str, Any]:
        """The newest fault that strikes this request, empty where none does. Counts the request."""
        asked = _OBJECT.fullmatch(urlsplit(self.path).path)
        if asked is None or self.command not in ("GET", "HEAD"):
            return {}
        repository, kind, name = asked.groups()
        if self.command == "GET" and "Authorization" in self.headers:
            self.ledger.add(repository, kind)
        for fault in self.front.config()["faults"]:
            wanted = fault["tag"] if kind == "manifests" else fault["blob"] if self.command == "GET" else None
            meant = fnmatch.fnmatchcase(repository, fault["repository"]) and wanted in (name, "*")
            if meant and self.ledger.strikes(fault):
                return dict(fault)
        return {}

    def _relay(self, response: http.client.HTTPResponse, fault: dict[str, Any]) -> None:
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if response.getheader("Content-Length") is None and response.status not in (204, 304):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.log_request(response.status)
        if self._send_body(response, fault):
            return
        self.close_connection = True
        if fault.get("stall") is not None:
            self.connection.settimeout(STALL_SECONDS)
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # until the client gives up
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_body(self, response: http.client.HTTPResponse, fault: dict[str, Any]) -> bool:
        """Send the body as the fault has it; False where it ends before its time."""
        asked = _OBJECT.fullmatch(urlsplit(self.path).path)
        position = int((response.getheader("Content-Range") or "bytes 0").split()[1].partition("-")[0])
        limit, rate = fault.get("cut", fault.get("stall")), fault.get("rate")
        sent, chunk = 0, max(1, rate // 20) if rate else CHUNK
        while block := response.read(chunk if limit is None else min(chunk, limit - sent)):
            flip = fault["flip"] - position - sent if "flip" in fault else -1
            if 0 <= flip < len(block):
                block = block[:flip] + bytes([block[flip] ^ 1]) + block[flip + 1 :]
            self.wfile.write(block)
            sent += len(block)
            if asked:
                self.ledger.add(asked[1], f"{asked[2]}_bytes", len(block))
            if rate:
                time.sleep(len(block) / rate)
        return limit is None or sent < limit

    def _refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        self.close_connection = True  # a body may not have been read
        self._answer(status, {"errors": [{"code": code, "message": message}]}, **headers)

    def _answer(self, status: int, document: dict[str, Any], **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def main(config_file: Path) -> None:
    Handler.front, Handler.ledger = Front(config_file), Ledger()
    server = ThreadingHTTPServer(("127.0.0.1", Handler.front.config()["port"]), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A request as it came and a reply as it will go out, before and after the faults have shaped it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from tests.lib.fault_hub.content import Content, InMemory, StoredFile

NOTHING = InMemory(b"")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Links(Protocol):
    """How a reply finds the hub's other listeners."""

    def url_of(self, listener: str) -> str:
        """`scheme://host:port` of a listener."""

    def presigned(self, listener: str, file: StoredFile) -> str:
        """An address at `listener` that serves `file` to whoever knows it."""


@dataclass(frozen=True)
class Request:
    """One request. `target` is as on the wire; `headers` have names in lower case."""

    listener: str
    method: str
    target: str
    headers: Mapping[str, str]
    peer: str
    links: Links = field(repr=False)

    @property
    def raw_path(self) -> str:
        return urlsplit(self.target).path

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        pairs = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in pairs.items()}

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def bearer(self) -> str | None:
        value = self.authorization or ""
        return value.removeprefix("Bearer ") if value.startswith("Bearer ") else None

    def range_of(self, size: int) -> tuple[int, int] | None:
        """First byte and count asked of a file of `size`; None: all of it. (size, 0): cannot be satisfied.

        Several ranges in one request are answered with the whole file, as most stores do.
        """
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None or match.groups() == ("", ""):
            return None
        first, last = match.groups()
        if first == "":
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(int(last) + 1, size) if last else size
        return (start, end - start) if start < end else (size, 0)


@dataclass(frozen=True)
class Wire:
    """What happens to a reply on its way; all counts are bytes of the body."""

    cut_after: int | None = None
    reset: bool = False  # a cut ends with RST instead of FIN
    silent: bool = False  # nothing is sent at all, not even headers
    stall_after: int | None = None  # -1: before the headers
    stall_seconds: float | None = None  # None: until released
    rate: float | None = None  # bytes a second
    extra: int = 0  # bytes after the end
    first_line: bytes | None = None  # in place of the status line
    extra_header: bytes = b""  # a raw line among the headers


@dataclass(frozen=True)
class Reply:
    """`role`: content (bytes of a file), resolve (where to get them), api, token or other."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    source: Content = NOTHING
    start: int = 0
    length: int = 0
    role: str = "other"
    file: StoredFile | None = None
    wire: Wire = Wire()

    def with_headers(self, **headers: str | None) -> "Reply":
        """Set headers (`_` for `-`), None removes one."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lower = {name.lower() for name in named}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in lower}
        return replace(self, headers=kept | {name: value for name, value in named.items() if value is not None})

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def on_wire(self, **changes: Any) -> "Reply":
        return replace(self, wire=replace(self.wire, **changes))

    def with_body(self, body: bytes, **headers: str | None) -> "Reply":
        changed = replace(self, source=InMemory(body), start=0, length=len(body))
        return changed.with_headers(Content_Length=str(len(body)), **headers)


def json_reply(status: int, document: Any, *, role: str = "api", **headers: str | None) -> Reply:
    body = json.dumps(document).encode()
    return Reply(status, role=role).with_body(body, Content_Type="application/json; charset=utf-8", **headers)


def redirect_reply(status: int, location: str, *, role: str = "resolve", **headers: str | None) -> Reply:
    return Reply(status, role=role).with_body(b"", Location=location, **headers)


def content_reply(request: Request, file: StoredFile, etag: str, **headers: str | None) -> Reply:
    """The file or the range asked for, as RFC 9110 has it: 200, 206 or 416; `If-Range` is honoured."""
    size = file.content.size
    common = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    reply = Reply(200, source=file.content, length=size, role="content", file=file).with_headers(**common)
    asked = request.range_of(size)
    if asked is None or request.headers.get("if-range", etag) != etag:
        return reply.with_headers(Content_Length=str(size))
    start, length = asked
    if length == 0:
        return replace(reply, status=416).with_body(b"", Content_Range=f"bytes */{size}")
    reply = replace(reply, status=206, start=start, length=length)
    span = f"bytes {start}-{start + length - 1}/{size}"
    return reply.with_headers(Content_Length=str(length), Content_Range=span)

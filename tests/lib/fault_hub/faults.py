"""Everything that a server can do wrong, as values: each turns the right reply into the wrong one.

`after`, `to` and the like count bytes of one response's body; `at` is an offset in the file. Where a fault only makes
sense for some requests (a flipped bit outside the range), `concerns` says so and the others neither see it nor use up
one of its times.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from typing import ClassVar, Protocol

from tests.lib.fault_hub.content import Flipped, Inverted
from tests.lib.fault_hub.messages import Reply, Request, redirect_reply


class Fault(Protocol):
    """One misbehaviour. `any_method`: applies to HEAD too, not to GET alone."""

    any_method: ClassVar[bool]

    def concerns(self, request: Request, reply: Reply) -> bool:
        """Whether this exchange is one that the fault can spoil."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        """The reply that goes out."""


class _Plain:
    """A fault of the body, which concerns every exchange."""

    any_method: ClassVar[bool] = False

    def concerns(self, request: Request, reply: Reply) -> bool:
        return True


class _Early(_Plain):
    """A fault that comes before any body, so HEAD meets it too."""

    any_method: ClassVar[bool] = True


@dataclass(frozen=True)
class Cut(_Plain):
    """The connection ends (FIN) after this many bytes; Content-Length promised more."""

    after: int

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(cut_after=self.after)


@dataclass(frozen=True)
class Stall(_Plain):
    """Silence after this many bytes (-1: before the headers), for some seconds or until `hub.release()`."""

    after: int = 0
    seconds: float | None = None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(stall_after=self.after, stall_seconds=self.seconds)


@dataclass(frozen=True)
class Truncate(_Plain):
    """Fewer bytes than asked. Honest: Content-Length says how few. Lying: it says all, and the connection ends."""

    to: int
    lying: bool = False

    def shape(self, request: Request, reply: Reply) -> Reply:
        if self.lying:
            return reply.on_wire(cut_after=self.to)
        length = min(self.to, reply.length)
        return replace(reply, length=length).with_headers(Content_Length=str(length))


@dataclass(frozen=True)
class ShortRange(_Plain):
    """A 206 with fewer bytes than asked and every header true, which RFC 9110 allows."""

    to: int

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.status == 206 and reply.length > self.to

    def shape(self, request: Request, reply: Reply) -> Reply:
        span = f"bytes {reply.start}-{reply.start + self.to - 1}/{reply.source.size}"
        return replace(reply, length=self.to).with_headers(Content_Length=str(self.to), Content_Range=span)


@dataclass(frozen=True)
class Reset(_Early):
    """RST: before any header (`after` None), or after the headers and this many bytes."""

    after: int | None = None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(reset=True, silent=self.after is None, cut_after=self.after or 0)


@dataclass(frozen=True)
class IgnoreRange(_Plain):
    """200 and the whole file, whatever range was asked."""

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.status in (206, 416) and reply.file is not None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return _whole(reply)


def _whole(reply: Reply) -> Reply:
    if reply.file is None:
        return reply
    content = reply.file.content
    changed = replace(reply, status=200, source=content, start=0, length=content.size)
    return changed.with_headers(Content_Length=str(content.size), Content_Range=None)


@dataclass(frozen=True)
class WrongContentRange(_Plain):
    """Content-Range names a place shifted by `by`; with `bytes_too` the bytes are those of that place."""

    by: int
    bytes_too: bool = False

    def concerns(self, request: Request, reply: Reply) -> bool:
        start = reply.start + self.by
        return reply.status == 206 and start >= 0 and (start + reply.length <= reply.source.size or not self.bytes_too)

    def shape(self, request: Request, reply: Reply) -> Reply:
        start = reply.start + self.by
        span = f"bytes {start}-{start + reply.length - 1}/{reply.source.size}"
        return replace(reply, start=start if self.bytes_too else reply.start).with_headers(Content_Range=span)


@dataclass(frozen=True)
class WrongTotal(_Early):
    """The size of the whole file is told wrong by `by`, in Content-Range or X-Linked-Size."""

    by: int = 1

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.status == 206 or reply.header("X-Linked-Size") is not None

    def shape(self, request: Request, reply: Reply) -> Reply:
        linked, span = reply.header("X-Linked-Size"), reply.header("Content-Range")
        if linked is not None:
            reply = reply.with_headers(X_Linked_Size=str(int(linked) + self.by))
        if span is not None:
            where, _, total = span.partition("/")
            reply = reply.with_headers(Content_Range=f"{where}/{int(total) + self.by}")
        return reply


@dataclass(frozen=True)
class ChangedEtag(_Early):
    """Each answer carries a new ETag, as of a file that is replaced during the download; If-Range gets all of it."""

    _numbers: "count[int]" = field(default_factory=lambda: count(1), repr=False, compare=False)

    def shape(self, request: Request, reply: Reply) -> Reply:
        if "if-range" in request.headers:
            reply = _whole(reply)
        return reply.with_headers(ETag=f'"changed-{next(self._numbers)}"')


@dataclass(frozen=True)
class WrongEtag(_Early):
    """A constant wrong ETag (and X-Linked-ETag where there was one)."""

    value: str = "0" * 64

    def shape(self, request: Request, reply: Reply) -> Reply:
        linked = f'"{self.value}"' if reply.header("X-Linked-ETag") else None
        return reply.with_headers(ETag=f'"{self.value}"', X_Linked_ETag=linked)


@dataclass(frozen=True)
class FlipBit(_Plain):
    """One bit of the file at offset `at` arrives turned over."""

    at: int
    bit: int = 0

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.file is not None and reply.start <= self.at < reply.start + reply.length

    def shape(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, source=Flipped(reply.source, self.at, self.bit))


@dataclass(frozen=True)
class WrongBytes(_Plain):
    """Other bytes of the right length."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, source=Inverted(reply.source))


@dataclass(frozen=True)
class Status(_Early):
    """An error status. `retry_after`: seconds, or a moment that is sent as an HTTP date."""

    code: int
    retry_after: int | datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error":"the fault hub was told to answer so"}'

    def shape(self, request: Request, reply: Reply) -> Reply:
        retry = self.retry_after
        when = format_datetime(retry.astimezone(UTC), usegmt=True) if isinstance(retry, datetime) else retry
        span = f"bytes */{reply.file.content.size}" if self.code == 416 and reply.file else None
        error = Reply(self.code, dict(self.headers), role=reply.role, file=reply.file)
        return error.with_body(self.body, Retry_After=None if when is None else str(when), Content_Range=span)


@dataclass(frozen=True)
class Slow(_Plain):
    """So many bytes a second."""

    rate: float

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(rate=self.rate)


@dataclass(frozen=True)
class EndlessRedirect(_Early):
    """A redirect to itself with another query, for ever."""

    code: int = 302

    def shape(self, request: Request, reply: Reply) -> Reply:
        base, _, number = request.target.partition("hop=")
        joint = "" if base[-1] in "?&" else "&" if "?" in base else "?"
        here = request.links.url_of(request.listener) + f"{base}{joint}hop={int(number or 0) + 1}"
        return replace(redirect_reply(self.code, here, role=reply.role), file=reply.file)


@dataclass(frozen=True)
class Redirect(_Early):
    """To the listener `to`: a presigned address of the same file there, or (`same_path`) the same path there."""

    to: str
    code: int = 302
    same_path: bool = False

    def concerns(self, request: Request, reply: Reply) -> bool:
        return request.listener != self.to

    def shape(self, request: Request, reply: Reply) -> Reply:
        if reply.file is None or self.same_path:
            where = request.links.url_of(self.to) + request.target
        else:
            where = request.links.presigned(self.to, reply.file)
        return replace(redirect_reply(self.code, where, role=reply.role), file=reply.file)


@dataclass(frozen=True)
class Gzip(_Plain):
    """Content-Encoding: gzip that nobody asked for. The range is held in memory: for small files."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        packed = gzip.compress(reply.source.read(reply.start, reply.length), 1, mtime=0)
        return reply.with_body(packed, Content_Encoding="gzip")


@dataclass(frozen=True)
class Extra(_Plain):
    """`bytes` more after the end. Counted: Content-Length includes them; else they spoil the next answer."""

    bytes: int
    counted: bool = True

    def shape(self, request: Request, reply: Reply) -> Reply:
        length = str(reply.length + self.bytes) if self.counted else reply.header("Content-Length")
        return reply.on_wire(extra=self.bytes).with_headers(Content_Length=length)


@dataclass(frozen=True)
class EmptyBody(_Plain):
    """The right status and Content-Range, and Content-Length: 0."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.with_body(b"")


@dataclass(frozen=True)
class Garbage(_Early):
    """No HTTP: a wrong status `line`, a `header` without colon, a `huge` one, or a Content-`length` of letters."""

    kind: str = "line"

    def shape(self, request: Request, reply: Reply) -> Reply:
        if self.kind == "line":
            return reply.on_wire(first_line=b"\x16\x03\x01 what is this\r\n", cut_after=0)
        if self.kind == "length":
            return reply.on_wire(cut_after=reply.length).with_headers(Content_Length="banana")
        lines = {"header": b"\x00\xffno colon here\r\n", "huge": b"X-Huge: " + b"x" * 100_000 + b"\r\n"}
        return reply.on_wire(extra_header=lines[self.kind])

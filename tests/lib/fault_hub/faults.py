"""What can go wrong with a body, as values.

`after`, `to` and the like count bytes of one response's body; `at` is an offset in the file. Where a fault only makes
sense for some requests (a flipped bit outside the range), `concerns` says so and the others neither see it nor use up
one of its times.
"""

import gzip
from dataclasses import dataclass, replace

from tests.lib.fault_hub.content import Flipped, Inverted
from tests.lib.fault_hub.fault import OfTheBody, whole_file
from tests.lib.fault_hub.messages import Reply, Request


@dataclass(frozen=True)
class Cut(OfTheBody):
    """The connection ends (FIN) after this many bytes; Content-Length promised more."""

    after: int

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(cut_after=self.after)


@dataclass(frozen=True)
class Stall(OfTheBody):
    """Silence after this many bytes (-1: before the headers), for some seconds or until `hub.release()`."""

    after: int = 0
    seconds: float | None = None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(stall_after=self.after, stall_seconds=self.seconds)


@dataclass(frozen=True)
class Truncate(OfTheBody):
    """Fewer bytes than asked. Honest: Content-Length says how few. Lying: it says all, and the connection ends."""

    to: int
    lying: bool = False

    def shape(self, request: Request, reply: Reply) -> Reply:
        if self.lying:
            return reply.on_wire(cut_after=self.to)
        length = min(self.to, reply.length)
        return replace(reply, length=length).with_headers(Content_Length=str(length))


@dataclass(frozen=True)
class ShortRange(OfTheBody):
    """A 206 with fewer bytes than asked and every header true, which RFC 9110 allows."""

    to: int

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.status == 206 and reply.length > self.to

    def shape(self, request: Request, reply: Reply) -> Reply:
        span = f"bytes {reply.start}-{reply.start + self.to - 1}/{reply.source.size}"
        return replace(reply, length=self.to).with_headers(Content_Length=str(self.to), Content_Range=span)


@dataclass(frozen=True)
class IgnoreRange(OfTheBody):
    """200 and the whole file, whatever range was asked."""

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.status in (206, 416) and reply.file is not None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return whole_file(reply)


@dataclass(frozen=True)
class WrongContentRange(OfTheBody):
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
class FlipBit(OfTheBody):
    """One bit of the file at offset `at` arrives turned over."""

    at: int
    bit: int = 0

    def concerns(self, request: Request, reply: Reply) -> bool:
        return reply.file is not None and reply.start <= self.at < reply.start + reply.length

    def shape(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, source=Flipped(reply.source, self.at, self.bit))


@dataclass(frozen=True)
class WrongBytes(OfTheBody):
    """Other bytes of the right length."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, source=Inverted(reply.source))


@dataclass(frozen=True)
class Slow(OfTheBody):
    """So many bytes a second."""

    rate: float

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(rate=self.rate)


@dataclass(frozen=True)
class Gzip(OfTheBody):
    """Content-Encoding: gzip that nobody asked for. The range is held in memory: for small files."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        packed = gzip.compress(reply.source.read(reply.start, reply.length), 1, mtime=0)
        return reply.with_body(packed, Content_Encoding="gzip")


@dataclass(frozen=True)
class Extra(OfTheBody):
    """`bytes` more after the end. Counted: Content-Length includes them; else they spoil the next answer."""

    bytes: int
    counted: bool = True

    def shape(self, request: Request, reply: Reply) -> Reply:
        length = str(reply.length + self.bytes) if self.counted else reply.header("Content-Length")
        return reply.on_wire(extra=self.bytes).with_headers(Content_Length=length)


@dataclass(frozen=True)
class EmptyBody(OfTheBody):
    """The right status and Content-Range, and Content-Length: 0."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.with_body(b"")

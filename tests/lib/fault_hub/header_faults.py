"""What can go wrong before the body: statuses, redirects, headers, resets; as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count

from tests.lib.fault_hub.fault import BeforeTheBody, whole_file
from tests.lib.fault_hub.messages import Reply, Request, redirect_reply


@dataclass(frozen=True)
class Reset(BeforeTheBody):
    """RST: before any header (`after` None), or after the headers and this many bytes."""

    after: int | None = None

    def shape(self, request: Request, reply: Reply) -> Reply:
        return reply.on_wire(reset=True, silent=self.after is None, cut_after=self.after or 0)


@dataclass(frozen=True)
class WrongTotal(BeforeTheBody):
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
class ChangedEtag(BeforeTheBody):
    """Each answer carries a new ETag, as of a file that is replaced during the download; If-Range gets all of it."""

    _numbers: "count[int]" = field(default_factory=lambda: count(1), repr=False, compare=False)

    def shape(self, request: Request, reply: Reply) -> Reply:
        if "if-range" in request.headers:
            reply = whole_file(reply)
        return reply.with_headers(ETag=f'"changed-{next(self._numbers)}"')


@dataclass(frozen=True)
class WrongEtag(BeforeTheBody):
    """A constant wrong ETag (and X-Linked-ETag where there was one)."""

    value: str = "0" * 64

    def shape(self, request: Request, reply: Reply) -> Reply:
        linked = f'"{self.value}"' if reply.header("X-Linked-ETag") else None
        return reply.with_headers(ETag=f'"{self.value}"', X_Linked_ETag=linked)


@dataclass(frozen=True)
class Status(BeforeTheBody):
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
class EndlessRedirect(BeforeTheBody):
    """A redirect to itself with another query, for ever."""

    code: int = 302

    def shape(self, request: Request, reply: Reply) -> Reply:
        base, _, number = request.target.partition("hop=")
        joint = "" if base[-1] in "?&" else "&" if "?" in base else "?"
        here = request.links.url_of(request.listener) + f"{base}{joint}hop={int(number or 0) + 1}"
        return replace(redirect_reply(self.code, here, role=reply.role), file=reply.file)


@dataclass(frozen=True)
class Redirect(BeforeTheBody):
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
class Garbage(BeforeTheBody):
    """No HTTP: a wrong status `line`, a `header` without colon, a `huge` one, or a Content-`length` of letters."""

    kind: str = "line"

    def shape(self, request: Request, reply: Reply) -> Reply:
        if self.kind == "line":
            return reply.on_wire(first_line=b"\x16\x03\x01 what is this\r\n", cut_after=0)
        if self.kind == "length":
            return reply.on_wire(cut_after=reply.length).with_headers(Content_Length="banana")
        lines = {"header": b"\x00\xffno colon here\r\n", "huge": b"X-Huge: " + b"x" * 100_000 + b"\r\n"}
        return reply.on_wire(extra_header=lines[self.kind])

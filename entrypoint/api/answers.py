"""The engine's refusals in the shape of the dialect, whatever shape they had; everything else passes untouched.

The engine answers wrong input in four shapes: OpenAI's, the same on Anthropic's routes where its models refuse a body,
lists of validation errors, and plain text. Only whole answers of 400 and above that are no streams are looked at.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from entrypoint.api.refusals import Dialect, encoded, error_body

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# An error's text is for a person; the engine repeats input in it.
TEXT = 4000
# What the engine says of a request that ended in an error inside it, such as a grammar that cannot be compiled.
_INSIDE = "Internal server error"
_CONSTRAINT = "The engine cannot compile or follow the schema, expression, grammar or strict tool of this request"
_LARGEST = 2**20
_SHOWN = (b"text/event-stream", b"text/html")


class ErrorShaper:
    """`send` for one request: passes all but errors, which it gathers and sends in the dialect's shape.

    `started` once anything came, `plain` is the `send` beneath.
    """

    def __init__(self, send: Send, dialect: Dialect, *, constrained: bool = False) -> None:
        self.plain, self._dialect, self._constrained = send, dialect, constrained
        self.started = False
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """One message of the answer: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        self.started = True
        if message["type"] == "http.response.start" and message["status"] >= 400 and not _is_stream(message):
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self.plain(message)
            return
        if len(self._body) < _LARGEST:
            self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        start, self._start = self._start, None
        await self._send_shaped(start)

    async def _send_shaped(self, start: Message) -> None:
        status, body = shaped(self._dialect, start["status"], bytes(self._body), constrained=self._constrained)
        kept = [(n, v) for n, v in start.get("headers", ()) if n.lower() not in (b"content-type", b"content-length")]
        headers = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.plain({"type": "http.response.start", "status": status, "headers": headers})
        await self.plain({"type": "http.response.body", "body": body})


def _is_stream(start: Message) -> bool:
    kinds = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return any(kind.startswith(_SHOWN) for kind in kinds)


def shaped(dialect: Dialect, status: int, body: bytes, *, constrained: bool = False) -> tuple[int, bytes]:
    """Status and body as the dialect has them. What the engine has not implemented was the client's to leave out.

    So was a constraint on which the engine failed: it says no more of it than that something went wrong.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = body.decode("utf-8", "replace").strip()
    text, parameter, kind = _told(document)
    if status == 500 and constrained and text == _INSIDE:
        text, status, kind = _CONSTRAINT, 400, None
    elif status in (422, 501):
        status, kind = 400, None
    elif kind is not None and " " in kind:  # "Bad Request", beside "BadRequestError" for the same
        kind = None
    if len(text) > TEXT:
        text = text[:TEXT] + " ..."
    return status, encoded(error_body(dialect, status, text or f"The engine answers {status}", parameter, kind))


def _told(document: Any) -> tuple[str, str | None, str | None]:
    """The text, the parameter and the kind of an error of any shape."""
    if isinstance(document, dict):
        inner = document.get("error", document.get("detail", document.get("message")))
        if isinstance(inner, dict):
            text, parameter, kind = inner.get("message"), inner.get("param"), inner.get("type")
            return (
                text if isinstance(text, str) else json.dumps(inner),
                parameter if isinstance(parameter, str) else None,
                kind if isinstance(kind, str) else None,
            )
        document = inner if inner is not None else document
    if isinstance(document, list):  # https://fastapi.tiangolo.com/tutorial/handling-errors/
        lines = [_line(entry) for entry in document[:10]]
        return "; ".join(lines), None, None
    return (document, None, None) if isinstance(document, str) else (json.dumps(document), None, None)


def _line(entry: Any) -> str:
    if isinstance(entry, dict) and isinstance(entry.get("msg"), str):
        place = entry.get("loc")
        return f"{'.'.join(map(str, place))}: {entry['msg']}" if isinstance(place, list) else str(entry["msg"])
    return json.dumps(entry)

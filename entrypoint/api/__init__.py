"""Request rules that the engine itself lacks, as one pure ASGI class inside the engine's process.

Given to vLLM by `--middleware entrypoint.api.RequestRules`. A class and never a function, because functions get
Starlette's slow wrapper; answers pass through untouched, so streaming costs nothing. Everything that is not clearly
against a rule goes to the engine, whose own errors are good.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from entrypoint.settings import image_limit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# A little more than the front lets through (64 MiB).
BODY_LIMIT = 65 * 2**20

_PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
_IMAGE_PARTS = ("image_url", "input_image", "image")
# The formats that both of NVIDIA's pages name:
# https://docs.nvidia.com/nim/vision-language-models/1.7.0/examples/kimi-k2.5/api.html
_FORMATS = ("image/gif", "image/jpg", "image/jpeg", "image/png")
# Bodies without these words cannot break a rule, and are not parsed.
_TELLING = (b"include_reasoning", b"image", b"\\u00")


class _RefusedError(Exception):
    """The request is against a rule; the text says which."""


class RequestRules:
    """Refuses what would be silently ignored or answered with a riddle: see `_judge`."""

    def __init__(self, app: App, max_images: int | None = None) -> None:
        self._app = app
        self._max_images = image_limit() if max_images is None else max_images  # the engine passes nothing

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One ASGI call: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        if scope["type"] != "http" or scope.get("method") != "POST" or scope.get("path") not in _PATHS:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone before its request was complete
            body += message.get("body", b"")
            if len(body) > BODY_LIMIT:
                await _answer(send, 413, "RequestTooLargeError", f"The request body is larger than {BODY_LIMIT} bytes")
                return
            if not message.get("more_body"):
                break
        try:
            self._judge(bytes(body))
        except _RefusedError as refusal:
            await _answer(send, 400, "BadRequestError", str(refusal))
            return
        await self._app(scope, _replay(bytes(body), receive), send)

    def _judge(self, body: bytes) -> None:
        if not any(word in body for word in _TELLING):
            return
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return  # the engine's own error names the place
        if not isinstance(document, dict):
            return
        if document.get("include_reasoning") is False and document.get("stream") is True:
            raise _RefusedError(
                "include_reasoning=false is not supported for streaming responses: leave one of include_reasoning and "
                "stream out"
            )
        count = 0
        for part in _image_parts(document):
            count += 1
            _check_format(part)
        if count > self._max_images:
            raise _RefusedError(
                f"The request holds {count} images, at most {self._max_images} are allowed in one request. "
                "The limit is set by NIM_MAX_IMAGES_PER_PROMPT when the server is started."
            )


def _image_parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every image part of a chat, responses or messages request, tool results included."""
    for turn in _list(document.get("messages")) + _list(document.get("input")):
        waiting = _list(turn.get("content")) if isinstance(turn, dict) else []
        while waiting:
            part = waiting.pop()
            if not isinstance(part, dict):
                continue
            if part.get("type") in _IMAGE_PARTS or ("type" not in part and "image_url" in part):
                yield part
            elif part.get("type") == "tool_result":
                waiting += _list(part.get("content"))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _check_format(part: dict[str, Any]) -> None:
    url = part.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    source = part.get("source")
    if isinstance(url, str) and url[:5].lower() == "data:":
        kind = url[5:].partition(",")[0].partition(";")[0].strip().lower()
    elif isinstance(source, dict) and source.get("type") == "base64":
        kind = str(source.get("media_type", "")).lower()
    else:
        return
    if kind not in _FORMATS:
        raise _RefusedError(f"Images of type {kind[:60] or 'unknown'!r} are not supported: use GIF, JPG, JPEG or PNG")


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for the engine: first the whole body, then whatever the client does next (such as going away)."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _answer(send: Send, status: int, kind: str, text: str) -> None:
    body = json.dumps({"error": {"message": text, "type": kind, "param": None, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Request rules that the engine itself lacks, as one pure ASGI class inside the engine's process.

Given to vLLM by `--middleware entrypoint.api.RequestRules`. A class and never a function, because functions get
Starlette's slow wrapper; answers pass through untouched, so streaming costs nothing. Everything that is not clearly
against a rule goes to the engine, whose own errors are good.
"""

import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from entrypoint.api import connector
from entrypoint.api.addresses import Allowed
from entrypoint.api.answers import ErrorShaper, Message, Send
from entrypoint.api.media import MediaLimits
from entrypoint.api.models import ROUTE as ROUTE_OF_MODELS
from entrypoint.api.models import OwnRoots
from entrypoint.api.refusals import Dialect, RefusedError, dialect_of, encoded, error_body
from entrypoint.api.rules import ROUTES, Limits, judge
from entrypoint.settings.inside import request_limits

_LOG = logging.getLogger("uvicorn.error")

Receive = Callable[[], Awaitable[Message]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def limits_of_this_server() -> Limits:
    """What the environment of this process says, as the container set it."""
    said = request_limits()
    media = MediaLimits(said.max_images, Allowed.read(said.allowed_media_domains), said.max_pixels)
    return Limits(media, (said.max_body_mib + 1) * 2**20)


class RequestRules:
    """Refuses what would be silently ignored, crash or hang the engine, or reach a private host: see `rules`."""

    def __init__(self, app: App, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits or limits_of_this_server()  # the engine passes nothing
        self._told: Limits | None = None
        connector.install(sys.modules, self._limits.media.allowed, self._limits.media.pixels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope.get("path", "")
        dialect = dialect_of(path)
        if scope.get("method") == "GET" and path == ROUTE_OF_MODELS:
            send = OwnRoots(send)
        if scope.get("method") != "POST" or path not in ROUTES:
            await self._pass(scope, receive, ErrorShaper(send, dialect), dialect)
            return
        limits = self._limits_for(scope)
        try:
            body = await _whole(receive, limits.body)
            if body is None:
                return  # the client is gone before its request was complete
            judged = judge(path, body, limits)
        except RefusedError as refusal:
            document = error_body(dialect, refusal.status, str(refusal), refusal.parameter)
            await _answer(send, refusal.status, encoded(document))
            return
        except Exception:  # a shape that no rule thought of: the fault is ours to see, the request is not to pass
            _LOG.exception("A request could not be judged")
            await _answer(send, 400, encoded(error_body(dialect, 400, "The request cannot be understood")))
            return
        shaper = ErrorShaper(send, dialect, constrained=judged.constrained)
        await self._pass(_resized(scope, body, judged.body), _replay(judged.body, receive), shaper, dialect)

    async def _pass(self, scope: Scope, receive: Receive, shaper: ErrorShaper, dialect: Dialect) -> None:
        """The request to the engine. An error that nobody there caught is answered here.

        Left to the server, it ends the connection too, on which the front may just have sent somebody else's request.
        """
        try:
            await self._app(scope, receive, shaper)
        except Exception:
            if shaper.started:
                raise
            _LOG.exception("Exception in ASGI application")  # as the server itself would say it
            status = 500
            await _answer(
                shaper.plain, status, encoded(error_body(dialect, status, "The engine failed on this request"))
            )

    def _limits_for(self, scope: Scope) -> Limits:
        """The limits with what only the running engine knows, which its application keeps in its state."""
        if self._told is None:
            app = scope.get("app")
            if app is None:
                return self._limits
            config = getattr(
                getattr(getattr(app, "state", None), "vllm_config", None), "structured_outputs_config", None
            )
            reasons = bool(getattr(config, "reasoning_parser", None)) and not getattr(
                config, "enable_in_reasoning", False
            )
            self._told = Limits(self._limits.media, self._limits.body, reasons)
        return self._told


async def _whole(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client left. Raises RefusedError for one without end."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise RefusedError(f"The request body is larger than {limit} bytes", status=413)
        pieces.append(piece)
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _resized(scope: Scope, came: bytes, goes: bytes) -> Scope:
    """The scope for a body of another length."""
    if came is goes:
        return scope
    headers = [(n, str(len(goes)).encode() if n == b"content-length" else v) for n, v in scope.get("headers", ())]
    return {**scope, "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for the engine: first the whole body, then whatever the client does next (such as going away)."""
    waiting: list[bytes] = [body]

    async def receive_again() -> Message:
        if not waiting:
            return await receive()
        return {"type": "http.request", "body": waiting.pop(), "more_body": False}

    return receive_again


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

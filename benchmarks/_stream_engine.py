"""A server of streams on a Unix socket, made of what vLLM's own is made of (uvicorn, uvloop, httptools), and no model.

    python -m benchmarks._stream_engine SOCKET

The header `X-Stream: CHUNKS RATE` says how many chunks a stream has and how many come a second (0: as fast as they
go; `idle`: one, and then nothing until the client leaves). Each chunk tells when it was made, in nanoseconds of the
machine's monotonic clock. `X-Stream: size` answers with the length of the body. It is wrapped in our request rules, as
the engine is. Not a benchmark itself.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from entrypoint.api import RequestRules

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# About what one token of a chat completion costs on the wire.
_REST = b',"object":"chat.completion.chunk","model":"demo","choices":[{"index":0,"delta":{"content":"' + b"x" * 60
_TAIL = b'"},"logprobs":null,"finish_reason":null}]}\n\n'


def _chunk() -> bytes:
    return b'data: {"made":%d' % time.monotonic_ns() + _REST + _TAIL


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """https://asgi.readthedocs.io/en/latest/specs/www.html"""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    words = dict(scope["headers"]).get(b"x-stream", b"size").split()
    if words[0] == b"size":
        body = json.dumps({"size": size}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})
        return
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _stream(words, receive, send)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _stream(words: list[bytes], receive: Receive, send: Send) -> None:
    if words[0] == b"idle":
        await send({"type": "http.response.body", "body": _chunk(), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            continue
        return
    count, rate = int(words[0]), float(words[1])
    due = time.monotonic()
    for _ in range(count):
        if rate:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await send({"type": "http.response.body", "body": _chunk(), "more_body": True})


if __name__ == "__main__":
    uvicorn.run(
        RequestRules(app), uds=sys.argv[1], log_level="error", loop="uvloop", http="httptools", access_log=False
    )

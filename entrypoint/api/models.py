"""`/v1/models` as NIM answers it: a model that is no adapter is its own root, where the engine tells a folder.

NVIDIA's operator takes a service of several names by the one whose `root` is its `id`; vLLM gives the path:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/openai/models/serving.py
"""

import json
from typing import Any

from entrypoint.api.answers import Message, Send

ROUTE = "/v1/models"


class OwnRoots:
    """A `send` for that route: holds the one answer until it is whole, and gives each model its own name as root."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """One ASGI message of the engine."""
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._pieces.append(message.get("body", b""))
        if message.get("more_body"):
            return
        start, self._start = self._start, None
        body = rooted(b"".join(self._pieces))
        headers = [(n, v) for n, v in start.get("headers", ()) if n.lower() != b"content-length"]
        await self._send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})


def rooted(body: bytes) -> bytes:
    """The document with `root` equal to `id` for each model without a parent; what is no such document stays."""
    try:
        document: Any = json.loads(body)
        for model in document["data"]:
            if model.get("parent") is None:
                model["root"] = model["id"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return body
    return json.dumps(document, separators=(",", ":")).encode()

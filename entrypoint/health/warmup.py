"""The proof behind `ready`: real requests through the public port, a text and, where the model sees, an image."""

import base64
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from entrypoint.front import Front
from entrypoint.unixhttp import Answer, UnreachableError, post_tcp
from nimctl.core.errors import NimctlError

HEADER = "X-Nimctl-Warmup"

# The first image costs 42 s in a fresh container on two cores (kernels are compiled); a large model compiles longer.
ANSWER_SECONDS = 1800.0

# Two by two patches of 28 pixels: the least that vision towers with merged 14-pixel patches take without scaling.
_SIDE = 56


def picture(side: int = _SIDE) -> bytes:
    """A PNG of `side` x `side` RGB pixels with a gradient, made with nothing but zlib.

    https://www.w3.org/TR/png-3/
    """
    rows = b"".join(
        b"\0" + bytes(v for x in range(side) for v in (x * 255 // side, y * 255 // side, 128)) for y in range(side)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def warm_up(
    front: Front, model: str, *, images: bool, on_step: Callable[[str], None], timeout: float = ANSWER_SECONDS
) -> None:
    """Ask once for text and, with `images`, once about a picture. Raises `warmup-failed` unless both are answered."""
    on_step("a text request")
    _expect(_ask_text(front, model, timeout), "text")
    if images:
        on_step("an image request")
        url = "data:image/png;base64," + base64.b64encode(picture()).decode()
        content: list[dict[str, Any]] = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        _expect(_chat(front, model, content, timeout), "image")


def _ask_text(front: Front, model: str, timeout: float) -> Answer:
    answer = _chat(front, model, "Say hello.", timeout)
    if answer.status == 400 and b"chat template" in answer.body:  # a base model: it completes and does not chat
        return _post(front, "/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": 8}, timeout)
    return answer


def _chat(front: Front, model: str, content: str | Sequence[dict[str, Any]], timeout: float) -> Answer:
    messages = [{"role": "user", "content": content}]
    return _post(front, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 8}, timeout)


def _post(front: Front, url: str, document: dict[str, Any], timeout: float) -> Answer:
    try:
        return post_tcp(front.client_host, front.port, url, document, headers={HEADER: front.token}, timeout=timeout)
    except UnreachableError as error:
        raise _failed(f"{url} was not answered", str(error)) from error


def _expect(answer: Answer, kind: str) -> None:
    document = answer.json()
    choices = document.get("choices") if isinstance(document, dict) else None
    if answer.status != 200 or not choices:
        body = answer.body[:300].decode(errors="replace")
        raise _failed(f"the {kind} request was answered with {answer.status}", body)


def _failed(message: str, cause: str) -> NimctlError:
    return NimctlError(
        "warmup-failed",
        f"the warm-up failed: {message}",
        cause=cause or "the answer was empty",
        fix="Read the engine's lines above; the checkpoint and the engine arguments must fit each other.",
    )

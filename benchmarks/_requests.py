"""The requests that a demo must answer: a text, an image, and a long stream. Not a benchmark itself."""

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from benchmarks._container import BenchmarkError
from benchmarks._sampling import Sampler

CHAT = "/v1/chat/completions"
# These end a benchmark that hangs; no bar depends on them.
START_SECONDS, REQUEST_SECONDS = 300, 60

# A PNG of 84 x 84 pixels, grey with a red square.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAFQAAABUCAIAAACTCYeWAAAAeElEQVR42u3PAQ0AMAgEMZTgX8rkIAEZy2+9nIHWfFzBw8PDw8PDw8PDw8PDw8"
    "PDw8M/jj/d14eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh0/ApwcPDw8PDw8PDw8PDw8PDw8PDx/QAhrk8fLr6D3zAA"
    "AAAElFTkSuQmCC"
)
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
QUESTIONS = ("Say hello.", [{"type": "text", "text": "What is this?"}, IMAGE])


@dataclass(frozen=True)
class Answer:
    """`status` is None where nobody answered; `document` where the body is not JSON. `asked` in wall-clock seconds."""

    asked: float
    status: int | None
    document: Any


def ask(port: int, path: str, body: Mapping[str, Any] | None = None, *, seconds: float) -> Answer:
    """GET, or POST of a JSON body. Never raises."""
    asked = time.time()
    connection = HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        raw = response.read()
    except (OSError, HTTPException):
        return Answer(asked, None, None)
    finally:
        connection.close()
    with suppress(ValueError):
        return Answer(asked, response.status, json.loads(raw))
    return Answer(asked, response.status, None)


def chat(content: Any, **extra: Any) -> dict[str, Any]:
    """The body of a completion of a few tokens."""
    return {"model": "demo", "messages": [{"role": "user", "content": content}], "max_tokens": 8} | extra


@dataclass(frozen=True)
class Proof:
    """When ready was first seen, when the pair of requests was sent that worked, and which pair that was."""

    ready_at: float
    asked: float
    attempts: int


def prove(port: int, ready: Sampler) -> Proof:
    """At the first ready 200 ask about a text and an image, and again until both are answered."""
    first = ready.first_ok(START_SECONDS)
    if first is None:
        raise BenchmarkError("it was never ready")
    deadline, attempts = time.monotonic() + REQUEST_SECONDS, 0
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        while time.monotonic() < deadline:
            asked, attempts = time.time(), attempts + 1
            answers = pool.map(lambda content: ask(port, CHAT, chat(content), seconds=REQUEST_SECONDS), QUESTIONS)
            if all(a.status == 200 and bool((a.document or {}).get("choices")) for a in answers):
                return Proof(first.at, asked, attempts)
    raise BenchmarkError(f"it was ready and answered no request in {REQUEST_SECONDS} s")


@dataclass(frozen=True)
class Streamed:
    """Whether it ended with [DONE], the tokens that the engine counted, and the wall-clock time of the end."""

    done: bool
    tokens: int
    ended: float


def stream(port: int, flowing: threading.Event, tokens_asked: int = 100) -> Streamed:
    """A streamed completion of so many tokens; sets `flowing` once text comes, and at the end whatever it is."""
    connection, chunks, tokens, done = HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS), 0, 0, False
    extra = {"max_tokens": tokens_asked, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    try:
        body = json.dumps(chat("Tell me a story.", **extra))
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                chunks += 1
                tokens = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", tokens)
            if chunks >= 4:  # the role, and text
                flowing.set()
            done = done or line.strip() == b"data: [DONE]"
    except (OSError, HTTPException):
        done = False
    finally:
        connection.close()
        flowing.set()
    return Streamed(done, tokens, time.time())

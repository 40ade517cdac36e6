"""The proof behind `ready`: real requests through the public port: a text, a tool call and, with eyes, an image.

Each of the three runs what the others do not: the vision tower and its preprocessing, the compilation of a grammar and
its masks over the logits. They go at once, and the canary's first reading with them: the slowest is what they cost.
What users ask first beside them (streams, other routes, sampling options, images of other shapes) was measured to be no
slower than the second time: nothing else is asked here.
"""

import base64
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from entrypoint.front import Front
from entrypoint.health.judging import Baseline, Probe, Reading, is_not_a_number, probes, read
from entrypoint.unixhttp import Answer, UnreachableError, post_tcp
from nimctl.core.errors import NimctlError

HEADER = "X-Nimctl-Warmup"
READING = "reading"  # beside text, tool and image: what the canary will compare with

# The first image costs 42 s in a fresh container on two cores (kernels are compiled); a large model compiles longer.
ANSWER_SECONDS = 1800.0

# Two by two patches of 28 pixels: the least that vision towers with merged 14-pixel patches take without scaling.
_SIDE = 56

# One for the prompt and one for a step that only decodes; a text of some length would warm nothing more.
_TOKENS = 2

_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


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
    front: Front,
    model: str,
    *,
    images: bool,
    on_step: Callable[[str], None],
    on_answer: Callable[[str, float], None] = lambda kind, seconds: None,
    timeout: float = ANSWER_SECONDS,
) -> Baseline:
    """Have a text, a tool call and, with `images`, a picture answered, and take the reading that the canary needs.

    Raises `warmup-failed` unless text and picture are answered, `engine-answers-garbage` where probabilities are NaN.
    A model that cannot be given tools is served without: that its grammars are cold is said with `on_step`.
    `on_answer` gets the seconds of each request.
    """
    kinds = ("text", "tool", *(("image",) if images else ()), READING)
    asked: dict[str, Callable[[Front, str, float], Answer | Baseline]]
    asked = {"text": _ask_text, "tool": _ask_tool, "image": _ask_image, READING: take_baseline}
    on_step(f"requests: {', '.join(kinds)}")
    answers: SimpleQueue[tuple[str, Answer | Baseline | BaseException]] = SimpleQueue()
    began = time.monotonic()

    def ask(kind: str) -> None:
        try:
            answers.put((kind, asked[kind](front, model, timeout)))
        except BaseException as error:  # it is raised where it is waited for
            answers.put((kind, error))

    for kind in kinds:  # daemons: when one fails, the others hold nobody up
        Thread(target=ask, args=(kind,), name=f"warmup-{kind}", daemon=True).start()
    baseline = None
    for _ in kinds:
        kind, answer = answers.get()
        if isinstance(answer, BaseException):
            raise answer
        on_answer(kind, time.monotonic() - began)
        if isinstance(answer, Baseline):
            baseline = answer
        elif kind == "tool" and 400 <= answer.status < 500:
            on_step(f"no tool call: it is answered with {answer.status}")
        else:
            _expect(answer, kind)
    assert baseline is not None
    return baseline


def take_baseline(front: Front, model: str, timeout: float = ANSWER_SECONDS) -> Baseline:
    """What the engine answers in health, to the most telling request that it takes.

    Raises `engine-answers-garbage` where it cannot even tell its own choices' probabilities.
    """
    broken = False
    for probe in probes(model):
        answer = _post(front, probe.path, probe.document, timeout)
        if is_not_a_number(answer):
            # Once may be a fault in what is told of the prompt alone; a model whose own choices are NaN is broken.
            if broken:
                raise garbage("it computes NaN or infinity for the probability of a token")
            broken = True
        elif (reading := read(answer)) is not None:
            return Baseline(probe, reading)
    # Nothing can be compared, and that it answers at all can still be seen.
    return Baseline(Probe("/v1/chat/completions", _chat_document(model, "Say hello.")), Reading())


def garbage(why: str) -> NimctlError:
    """The error of an engine whose answers cannot be right."""
    return NimctlError(
        "engine-answers-garbage",
        "the engine answers garbage",
        cause=why,
        fix="Look for GPU errors (`nimctl doctor`, Xid and ECC in dmesg); `nimctl cache verify` tells of the weights.",
    )


def _ask_text(front: Front, model: str, timeout: float) -> Answer:
    answer = _post(front, "/v1/chat/completions", _chat_document(model, "Say hello."), timeout)
    if answer.status == 400 and b"chat template" in answer.body:  # a base model: it completes and does not chat
        document = {"model": model, "prompt": "Hello", "max_tokens": _TOKENS}
        return _post(front, "/v1/completions", document, timeout)
    return answer


def _ask_image(front: Front, model: str, timeout: float) -> Answer:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return _post(front, "/v1/chat/completions", _chat_document(model, content), timeout)


def _ask_tool(front: Front, model: str, timeout: float) -> Answer:
    """A tool that must be called needs no parser, and is a grammar from the first token where nothing is thought."""
    more = {
        "tools": [_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        # As the chat templates of Kimi and Qwen name it; others take no notice.
        "chat_template_kwargs": {"thinking": False, "enable_thinking": False},
    }
    return _post(front, "/v1/chat/completions", _chat_document(model, "Weather?") | more, timeout)


def _chat_document(model: str, content: str | Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": _TOKENS}


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

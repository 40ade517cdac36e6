"""Request rules inside the engine: what is refused, and that everything else passes untouched."""

import asyncio
import json

import pytest

from entrypoint.api import BODY_LIMIT, RequestRules

PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
WEB = {"type": "image_url", "image_url": {"url": "https://example.org/x.webp"}}


def call(body, *, path="/v1/chat/completions", method="POST", limit=4, pieces=1, gone=False):
    """(status, document, what the engine received) of one request in `pieces` pieces."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = max(1, -(-len(raw) // pieces))
    messages = [
        {"type": "http.request", "body": raw[i : i + size], "more_body": i + size < len(raw)}
        for i in range(0, max(1, len(raw)), size)
    ]
    if gone:
        messages[-1] = {"type": "http.disconnect"}
    later = [*messages, {"type": "http.disconnect"}]
    sent, received = [], []

    async def receive():
        return later.pop(0)

    async def send(message):
        sent.append(message)

    async def engine(scope, receive, send):
        received.append((await receive())["body"])
        received.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    asyncio.run(RequestRules(engine, limit)({"type": "http", "method": method, "path": path}, receive, send))
    if not sent:
        return None, None, received
    text = b"".join(m.get("body", b"") for m in sent)
    return sent[0]["status"], json.loads(text) if sent[0]["status"] != 299 else text, received


def chat(*parts, **more):
    return {"messages": [{"role": "user", "content": list(parts)}], **more}


def test_a_good_request_passes_whole_and_its_answer_in_pieces():
    body = json.dumps(chat(PNG, PNG)).encode()
    for pieces in (1, 3):
        assert call(body, pieces=pieces) == (299, b"ab", [body, "http.disconnect"])


def test_hidden_reasoning_cannot_be_streamed():
    status, document, received = call({"messages": [], "include_reasoning": False, "stream": True})
    assert (status, received) == (400, [])
    assert document["error"]["type"] == "BadRequestError"
    assert "include_reasoning" in document["error"]["message"]


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"include_reasoning": False}, {"include_reasoning": True, "stream": True}]
)
def test_each_alone_passes(more):
    assert call({"messages": [], **more})[0] == 299


def test_a_fifth_image_names_the_setting():
    assert call(chat(*[PNG] * 4))[0] == 299
    status, document, _ = call(chat(*[PNG] * 5))
    assert status == 400
    assert "5 images, at most 4" in document["error"]["message"]
    assert "NIM_MAX_IMAGES_PER_PROMPT" in document["error"]["message"]


def test_images_of_all_turns_count_and_none_may_be_allowed():
    turns = {"messages": [{"role": "user", "content": [PNG]}, {"role": "user", "content": [WEB]}]}
    assert call(turns, limit=2)[0] == 299
    assert call(turns, limit=1)[0] == 400
    assert call(chat(PNG), limit=0)[0] == 400


@pytest.mark.parametrize("kind", ["image/gif", "image/jpg", "image/jpeg", "image/png", "IMAGE/PNG"])
def test_formats_that_are_promised(kind):
    assert call(chat({"type": "image_url", "image_url": {"url": f"data:{kind};base64,AA"}}))[0] == 299


@pytest.mark.parametrize("kind", ["image/webp", "image/svg+xml", "image/tiff", "text/html", ""])
def test_formats_that_are_not(kind):
    status, document, _ = call(chat({"type": "image_url", "image_url": {"url": f"data:{kind};base64,AA"}}))
    assert status == 400
    assert "GIF, JPG, JPEG or PNG" in document["error"]["message"]


def test_the_other_dialects():
    responses = {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/bmp;base64,A"}]}]
    }
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "A"}}
    messages = {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [picture]}]}]}
    assert call(responses, path="/v1/responses")[0] == 400
    assert call(messages, path="/v1/messages")[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{image", b'["image"]', b'"image"', b"[" * 100_000 + b"image", b'{"messages": "image"}',
        b'{"messages": [1, {"content": "image"}, {"content": [null, 3, {"image_url": 5}]}]}', b"\xff image",
    ],
)  # fmt: skip
def test_nonsense_is_the_engines_to_refuse(body):
    assert call(body)[0] == 299


def test_other_routes_are_not_read():
    assert call(chat(*[PNG] * 9), path="/v1/completions")[0] == 299
    assert call(chat(*[PNG] * 9), method="GET")[0] == 299


def test_a_body_without_end_is_cut_off():
    status, document, received = call(b"x" * (BODY_LIMIT + 1), pieces=65)
    assert (status, document["error"]["code"], received) == (413, 413, [])


def test_a_client_that_leaves_early_costs_nothing():
    assert call(chat(PNG), pieces=2, gone=True) == (None, None, [])

"""The request rules as the engine calls them: what is refused, and that everything else passes untouched."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from entrypoint.api import RequestRules, middleware
from entrypoint.api.media import MediaLimits
from entrypoint.api.middleware import limits_of_this_server
from entrypoint.api.rules import Limits
from tests.lib.pictures import PNG_HEAD, data_url

PNG = {"type": "image_url", "image_url": {"url": data_url(PNG_HEAD)}}
WEB = {"type": "image_url", "image_url": {"url": "https://example.org/x.webp"}}
MIB = 2**20


def call(
    body,
    *,
    path="/v1/chat/completions",
    method="POST",
    limit=4,
    pieces=1,
    gone=False,
    answer=None,
    reasons=None,
    engine=None,
):
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

    async def usual(scope, receive, send):
        received.append((await receive())["body"])
        received.append((await receive())["type"])
        status, kind, text = answer or (299, b"text/event-stream", b"ab")
        await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", kind)]})
        await send({"type": "http.response.body", "body": text[:1], "more_body": True})
        await send({"type": "http.response.body", "body": text[1:]})

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"content-length", str(len(raw)).encode())]}
    if reasons is not None:
        config = SimpleNamespace(reasoning_parser=reasons, enable_in_reasoning=False)
        scope["app"] = SimpleNamespace(
            state=SimpleNamespace(vllm_config=SimpleNamespace(structured_outputs_config=config))
        )
    asyncio.run(RequestRules(engine or usual, Limits(MediaLimits(limit), MIB))(scope, receive, send))
    if not sent:
        return None, None, received
    text = b"".join(m.get("body", b"") for m in sent)
    return sent[0]["status"], json.loads(text) if sent[0]["status"] != 299 else text, received


def chat(*parts, **more):
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "hi"}]}], **more}


def test_a_good_request_passes_whole_and_its_answer_in_pieces():
    body = json.dumps(chat(PNG, PNG)).encode()
    for pieces in (1, 3):
        assert call(body, pieces=pieces) == (299, b"ab", [body, "http.disconnect"])


def test_hidden_reasoning_cannot_be_streamed():
    status, document, received = call(chat(include_reasoning=False, stream=True))
    assert (status, received) == (400, [])
    assert document["error"]["type"] == "BadRequestError"
    assert document["error"]["param"] == "include_reasoning"
    assert "include_reasoning" in document["error"]["message"]


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"include_reasoning": False}, {"include_reasoning": True, "stream": True}]
)
def test_each_alone_passes(more):
    assert call(chat(**more))[0] == 299


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


def test_the_dialects_read_their_own_errors():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "A"}}
    messages = {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [picture]}]}]}
    status, document, _ = call(messages, path="/v1/messages")
    assert (status, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")
    responses = {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/bmp;base64,A"}]}]
    }
    status, document, _ = call(responses, path="/v1/responses")
    assert (status, document["error"]["code"]) == (400, 400)


def test_a_constraint_on_a_completion_is_refused_only_where_it_would_be_ignored():
    body = {"prompt": "a", "structured_outputs": {"choice": ["x", "y"]}}
    assert call(body, path="/v1/completions", reasons="")[0] == 299
    status, document, _ = call(body, path="/v1/completions", reasons="kimi_k2")
    assert (status, document["error"]["param"]) == (400, "structured_outputs")
    assert "/v1/chat/completions" in document["error"]["message"]
    wanted = {"prompt": "a", "response_format": {"type": "json_object"}}
    assert call(wanted, path="/v1/completions", reasons="kimi_k2")[0] == 400
    assert (
        call({"prompt": "a", "response_format": {"type": "text"}}, path="/v1/completions", reasons="kimi_k2")[0] == 299
    )


def test_other_routes_are_not_read():
    assert call(chat(*[PNG] * 9), path="/v1/responses/x/cancel")[0] == 299
    assert call(chat(*[PNG] * 9), method="GET")[0] == 299


def test_a_body_without_end_is_cut_off():
    status, document, received = call(b"x" * (MIB + 1), pieces=65)
    assert (status, document["error"]["code"], received) == (413, 413, [])


def test_a_client_that_leaves_early_costs_nothing():
    assert call(chat(PNG), pieces=2, gone=True) == (None, None, [])


def test_the_engines_own_errors_get_the_dialects_shape():
    openai = json.dumps({"error": {"message": "too long", "type": "BadRequestError", "param": "body.x", "code": 400}})
    blocks = {"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    answer = (400, b"application/json", openai.encode())
    status, document, _ = call(blocks, path="/v1/messages", answer=answer)
    assert (status, document) == (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}},
    )
    assert call(chat(), answer=answer)[1] == json.loads(openai)
    status, document, _ = call(chat(), answer=(500, b"text/plain", b"Internal Server Error"))
    assert (status, document["error"]["message"]) == (500, "Internal Server Error")
    assert (document["error"]["type"], document["error"]["code"]) == ("InternalServerError", 500)


def failing(started):
    async def engine(scope, receive, send):
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise AssertionError("Expected all items to be dicts")

    return engine


def test_an_error_that_nobody_caught_does_not_end_the_connection(caplog):
    """The front sends the next request on the same connection, and would find it closed."""
    status, document, _ = call(chat(), engine=failing(False))
    error = {"message": "The engine failed on this request", "type": "InternalServerError", "param": None, "code": 500}
    assert (status, document) == (500, {"error": error})
    assert "Expected all items to be dicts" in caplog.text
    with pytest.raises(AssertionError):
        call(chat(), engine=failing(True))


def test_a_rule_that_fails_lets_nothing_pass(monkeypatch, caplog):
    def broken(*_):
        raise KeyError("type")

    monkeypatch.setattr(middleware, "judge", broken)
    status, document, received = call(chat())
    assert (status, document["error"]["message"], received) == (400, "The request cannot be understood", [])
    assert "KeyError" in caplog.text


def test_a_completed_body_has_its_own_length():
    shown = {"type": "input_image", "image_url": WEB["image_url"]["url"]}
    items = [{"type": "function_call_output", "call_id": "c", "output": [shown]}]
    seen = []

    async def engine(scope, receive, send):
        seen.append((dict(scope["headers"])[b"content-length"], (await receive())["body"]))

    call({"input": items}, path="/v1/responses", engine=engine)
    assert int(seen[0][0]) == len(seen[0][1]) > len(json.dumps({"input": items}))


def test_the_limits_come_from_the_environment(monkeypatch):
    for name, value in {"NIM_MAX_IMAGES_PER_PROMPT": "2", "NIM_MAX_BODY_MIB": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NIM_ALLOWED_MEDIA_DOMAINS", "a.example")
    monkeypatch.delenv("VLLM_MAX_IMAGE_PIXELS", raising=False)
    limits = limits_of_this_server()
    assert (limits.media.images, limits.body, limits.media.pixels) == (2, 4 * MIB, 2**26)
    assert [str(host) for host in limits.media.allowed.hosts] == ["a.example"]

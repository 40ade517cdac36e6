"""`/v1/models` through the rules: what an operator takes for the model's name."""

import asyncio
import json
from typing import Any

import pytest

from entrypoint.api.middleware import RequestRules
from entrypoint.api.models import rooted
from tests.lib.operator_rules import model_of_list

PATH = "/model-store/huggingface/hub/x"


def card(name: str, parent: str | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "root": PATH, "parent": parent}


LISTED = {"object": "list", "data": [card("org/name"), card("short"), card("an-adapter", "org/name")]}


def answered(pieces: list[bytes], status: int = 200, path: str = "/v1/models") -> list[dict[str, Any]]:
    """The messages that come out for an engine which answers in these pieces."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"Content-Length", b"9")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    asyncio.run(RequestRules(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize("cut", [0, 40])
def test_a_model_is_its_own_root_and_an_adapter_is_not(cut):
    text = json.dumps(LISTED).encode()
    assert model_of_list(LISTED) is None, "as the engine says it, nobody's name is found"
    start, body = answered([text[:cut], text[cut:]] if cut else [text])
    told = json.loads(body["body"])
    assert model_of_list(told) == "org/name"
    assert [one["root"] for one in told["data"]] == ["org/name", "short", PATH]
    assert [v for n, v in start["headers"] if n.lower() == b"content-length"] == [str(len(body["body"])).encode()]
    assert (b"content-type", b"application/json") in start["headers"]


def test_other_answers_stay():
    for body in (b"no json", b"[]", b'{"data": 1}', b'{"data": [1]}', b'{"data": [{"parent": null}]}'):
        assert rooted(body) == body
    text = json.dumps(LISTED).encode()
    assert answered([text], path="/v1/other")[1]["body"] == text
    assert answered([b"{}"], status=503)[0]["status"] == 503

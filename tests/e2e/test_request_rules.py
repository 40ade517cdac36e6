"""Requests that are against a rule, and those that would have killed or fooled the engine, on the running demo."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.e2e.server import Server
from tests.lib.pictures import PNG_HEAD, data_url, png_head

CHAT, COMPLETIONS, RESPONSES, MESSAGES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
REFUSED = [{"type": "refusal", "refusal": "no"}]
QUIET = {"chat_template_kwargs": {"thinking": False}, "max_tokens": 8}


def ask(server: Server, path: str, body: Any) -> tuple[int, Any]:
    """Status and document of one request; a stream is its text."""
    data = body if isinstance(body, bytes) else json.dumps({"model": "demo", **body}).encode()
    headers = {"Content-Type": "application/json", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    request = urllib.request.Request(f"{server.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
            return answer.status, text.decode() if b"event: " in text[:10] else json.loads(text)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def picture(url: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        "max_tokens": 1,
    }


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"choice": ["x"]}}, "Use /v1/chat/completions"),
        (CHAT, {"messages": HI, "structured_outputs": {"json": {}}}, "is empty"),
        (CHAT, {"messages": HI, "structured_outputs": {"json": {"pattern": "a{129}"}}}, "counts to 129"),
        (CHAT, {"messages": HI, **QUIET, "structured_outputs": {"grammar": "root ::= root"}}, "cannot compile"),
        (CHAT, {"messages": HI, "structured_outputs": {"regex": "("}}, "regex"),
        (CHAT, picture(data_url(PNG_HEAD)), "image"),
        (CHAT, {"messages": [{"role": "user", "content": [{"image_url": None}]}]}, "no image_url"),
        (CHAT, picture(data_url(png_head(10**5, 10**5))), "100000 x 100000"),
        (CHAT, picture("http://169.254.169.254/latest/meta-data"), "NIM_ALLOWED_MEDIA_DOMAINS"),
        (CHAT, picture("https://assets.ngc.nvidia.com/x.jpg"), "NIM_ALLOWED_MEDIA_DOMAINS"),
        (CHAT, b'{"messages":[' + b"{}," * 10**6 + b"{}]}", "more than"), (CHAT, b"{", "not JSON"),
        (CHAT, {"messages": HI, "temperature": 9}, "temperature"),
        (CHAT, {"messages": HI, "guided_json": SCHEMA}, "guided"),
    ],
)  # fmt: skip
def test_refused_with_a_reason(server: Server, path: str, body: Any, says: str) -> None:
    status, document = ask(server, path, body)
    assert (status, document["error"]["code"]) == (400, 400), document
    assert says in document["error"]["message"], document


def test_a_picture_of_a_host_that_the_operator_named(server: Server) -> None:
    """By our own connection: the engine's would have followed the redirect of a host that redirects."""
    assert ask(server, CHAT, picture(server.image("png")))[0] == 200
    status, document = ask(server, CHAT, picture(f"{server.pictures}/nothing.bin"))
    assert (status, "answers 404" in document["error"]["message"]) == (400, True)


def test_claude_code(server: Server) -> None:
    body: dict[str, Any] = {
        "max_tokens": 1100,
        "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "context_management": {"edits": []},
        "tools": [{"name": "Bash", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "messages": [
            *HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a"}]},
        ],
    }
    status, text = ask(server, MESSAGES, {**body, "stream": True})
    assert (status, text.count("event: message_stop")) == (200, 1)
    counted = {name: value for name, value in body.items() if name != "max_tokens"}
    assert ask(server, f"{MESSAGES}/count_tokens", counted)[1]["input_tokens"] > 10
    status, document = ask(server, MESSAGES, {"messages": HI})  # the engine's own error, in Anthropic's shape
    assert (status, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")


def test_codex(server: Server) -> None:
    shown = {"type": "input_image", "image_url": server.data_url("png")}
    body = {
        "instructions": "You are",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": REFUSED},
            {"type": "reasoning", "summary": [], "encrypted_content": None},
            {"type": "function_call", "call_id": "c", "name": "view", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [shown]},
        ],
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": SCHEMA},
            {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
            {"type": "web_search"},
            {"type": "local_shell"},
        ],
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "stream": True,
        "max_output_tokens": 16,
    }
    status, text = ask(server, RESPONSES, body)
    assert status == 200, text
    assert "event: response.created" in text
    assert text.count("event: response.completed") + text.count("event: response.incomplete") == 1
    assert ask(server, f"{RESPONSES}/resp_none/cancel", {})[0] == 404
    assert ask(server, RESPONSES, {"input": "x", "previous_response_id": "resp_none"})[0] == 404

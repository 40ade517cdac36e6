"""Every request of NVIDIA's page "Get Started with Kimi-K2.5", against the running demo.

Only the host, the port and the addresses of images differ from the page:
https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html
"""

import json

import pytest

from tests.e2e.server import Server, curl

pytestmark = [pytest.mark.engine]
MODEL = "moonshotai/kimi-k2.5-turbo"
JSON_HEADERS = ("-H", "Accept: application/json", "-H", "Content-Type: application/json")


def test_live_endpoint_says_the_service_is_live(server: Server) -> None:
    answer = curl(f"{server.url}/v1/health/live")
    assert answer.status == 200
    assert answer.json() == {"object": "health.response", "message": "Service is live", "status": "ok"}
    assert answer.headers["cache-control"] == "no-store, no-cache, must-revalidate"
    assert answer.headers["content-type"] == "application/json"


def test_ready_endpoint_says_the_service_is_ready(server: Server) -> None:
    answer = curl(f"{server.url}/v1/health/ready")
    assert answer.status == 200
    assert answer.json() == {"object": "health.response", "message": "Service is ready", "status": "ok"}
    assert answer.headers["cache-control"] == "no-store, no-cache, must-revalidate"


def test_chat_completion_about_an_image_url_without_thinking(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this image?"},
                    {"type": "image_url", "image_url": {"url": server.image("jpg")}},
                ],
            }
        ],
        "max_tokens": 1024,
        "chat_template_kwargs": {"thinking": False},
    }
    answer = curl("-X", "POST", f"{server.url}/v1/chat/completions", *JSON_HEADERS, "-d", json.dumps(body))
    assert answer.status == 200, answer.body
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].strip()
    assert not choice["message"].get("reasoning")


@pytest.mark.parametrize("kind", ["gif", "jpg", "jpeg", "png"])
def test_images_of_the_four_formats_as_base64_data(server: Server, kind: str) -> None:
    content = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image_url", "image_url": {"url": server.data_url(kind)}},
    ]
    answer = server.chat(content, model=MODEL, chat_template_kwargs={"thinking": False})
    assert answer["choices"][0]["message"]["content"].strip()
    text_only = server.chat("What is in this image?", model=MODEL, chat_template_kwargs={"thinking": False})
    assert answer["usage"]["prompt_tokens"] > text_only["usage"]["prompt_tokens"]  # the picture became tokens


def test_streaming_ends_with_done(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Write a short poem about a robot."}],
        "temperature": 1.0,
        "top_p": 0.95,
        "max_tokens": 100,
        "stream": True,
        "chat_template_kwargs": {"thinking": False},
    }
    answer = curl(f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body))
    assert answer.status == 200
    events = [line.removeprefix("data: ") for line in answer.body.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(e)["choices"][0]["delta"] for e in events[:-1] if json.loads(e)["choices"]]
    assert "".join(d.get("content") or "" for d in deltas).strip()
    assert len(deltas) > 3  # it came in pieces


def test_reasoning_is_on_by_default_and_fills_its_own_field_in_a_stream(server: Server) -> None:
    deltas = list(server.stream("Write a short poem about a robot.", model=MODEL, max_tokens=200))
    thought = "".join(d.get("reasoning") or "" for d in deltas)
    said = "".join(d.get("content") or "" for d in deltas)
    assert thought.strip() and said.strip()
    first_content = next(i for i, d in enumerate(deltas) if d.get("content"))
    assert not any(d.get("reasoning") for d in deltas[first_content + 1 :])


def test_text_completions_endpoint_works_and_streams(server: Server) -> None:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 16}
    whole = curl(f"{server.url}/v1/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body))
    assert whole.status == 200
    assert whole.json()["choices"][0]["text"]
    streamed = curl(
        f"{server.url}/v1/completions",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps({**body, "stream": True}),
    )
    assert streamed.body.rstrip().endswith("data: [DONE]")

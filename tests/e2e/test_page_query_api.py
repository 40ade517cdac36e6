"""Every request of NVIDIA's page "Query the Kimi-K2.5 API", against the running demo: curl, OpenAI SDK, LangChain.

Only the host, the port and the addresses of images differ from the page:
https://docs.nvidia.com/nim/vision-language-models/latest/examples/kimi-k2-5/api.html
"""

import json
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from tests.e2e.server import Server, curl

pytestmark = [pytest.mark.engine]
MODEL = "moonshotai/kimi-k2.5"
JSON_HEADERS = ("-H", "Accept: application/json", "-H", "Content-Type: application/json")
CUT_SHORT = 64  # the page's 4096 tokens show nothing more than these


def post(server: Server, body: dict[str, Any]) -> Any:
    answer = curl("-X", "POST", f"{server.url}/v1/chat/completions", *JSON_HEADERS, "-d", json.dumps(body))
    assert answer.status == 200, answer.body
    return answer


def picture_question(server: Server) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in this image?"},
                {"type": "image_url", "image_url": {"url": server.image("jpg")}},
            ],
        }
    ]


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-used")


def test_curl_asks_about_an_image_url(server: Server) -> None:
    answer = post(server, {"model": MODEL, "messages": picture_question(server), "max_tokens": 1024}).json()
    message = answer["choices"][0]["message"]
    assert message["content"].strip() and message["reasoning"].strip()
    assert answer["model"] == MODEL


def test_curl_streams(server: Server) -> None:
    body = {"model": MODEL, "messages": picture_question(server), "max_tokens": 1024, "stream": True}
    assert post(server, body).body.rstrip().endswith("data: [DONE]")


def test_sdk_asks_about_an_image_url(server: Server, client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model=MODEL, messages=picture_question(server), max_tokens=1024, stream=False
    )
    assert response.choices[0].message.content.strip()


def test_sdk_streams(server: Server, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=picture_question(server), max_tokens=1024, stream=True
    )
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices and c.choices[0].delta)
    assert text.strip()


@pytest.mark.parametrize("kind", ["gif", "jpg", "jpeg", "png"])
def test_image_formats_by_url(server: Server, kind: str) -> None:
    content = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image_url", "image_url": {"url": server.image(kind)}},
    ]
    assert server.chat(content, model=MODEL)["choices"][0]["message"]["content"].strip()


def test_four_images_are_answered_and_a_fifth_is_a_clear_400(server: Server) -> None:
    def ask(count: int) -> Any:
        image = {"type": "image_url", "image_url": {"url": server.data_url("png")}}
        content = [{"type": "text", "text": "Compare."}, *([image] * count)]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": CUT_SHORT}
        return curl("-X", "POST", f"{server.url}/v1/chat/completions", *JSON_HEADERS, "-d", json.dumps(body))

    assert ask(4).status == 200
    refused = ask(5)
    assert refused.status == 400
    error = refused.json()["error"]
    assert "4" in error["message"] and "image" in error["message"].lower()
    assert "NIM_MAX_IMAGES_PER_PROMPT" in error["message"]


def test_reasoning_off(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": picture_question(server),
        "chat_template_kwargs": {"thinking": False},
        "max_tokens": 4096,
    }
    message = post(server, body).json()["choices"][0]["message"]
    assert message["content"].strip() and not message.get("reasoning")


def test_reasoning_hidden_but_still_done(server: Server) -> None:
    shown = server.chat("What is 2 + 2?", model=MODEL)
    hidden = server.chat("What is 2 + 2?", model=MODEL, include_reasoning=False)
    assert not hidden["choices"][0]["message"].get("reasoning")
    assert hidden["choices"][0]["message"]["content"].strip()
    assert hidden["usage"]["completion_tokens"] == shown["usage"]["completion_tokens"]  # it reasoned all the same


def test_reasoning_hidden_in_a_stream_is_a_clear_400(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "include_reasoning": False,
        "stream": True,
    }
    answer = curl("-X", "POST", f"{server.url}/v1/chat/completions", *JSON_HEADERS, "-d", json.dumps(body))
    assert answer.status == 400
    assert "include_reasoning" in answer.json()["error"]["message"]


def test_text_only_query_streams(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant"},
            {
                "role": "user",
                "content": "Create a detailed itinerary for a week-long adventure trip through Southeast Asia.",
            },
        ],
        "max_tokens": 4096,
        "stream": True,
    }
    assert post(server, body).body.rstrip().endswith("data: [DONE]")


def test_sdk_text_only_query_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "You are a helpful assistant"},
            {"role": "user", "content": "Create a detailed itinerary for a week-long adventure trip."},
        ],
        max_tokens=4096,
        stream=True,
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices).strip()


def multi_turn(server: Server) -> list[dict[str, Any]]:
    return [
        *picture_question(server),
        {"role": "assistant", "content": "This image shows an **NVIDIA DGX system**, a line of AI servers. ..."},
        {"role": "user", "content": "When was this system released?"},
    ]


def test_multi_turn_conversation(server: Server, client: openai.OpenAI) -> None:
    body = {"model": MODEL, "messages": multi_turn(server), "max_tokens": 4096}
    first_turn = server.chat(picture_question(server)[0]["content"], model=MODEL)
    by_curl = post(server, body).json()
    assert by_curl["choices"][0]["message"]["content"].strip()
    assert by_curl["usage"]["prompt_tokens"] > first_turn["usage"]["prompt_tokens"]  # the history is in the prompt
    response = client.chat.completions.create(model=MODEL, messages=multi_turn(server), max_tokens=4096, stream=False)
    assert response.choices[0].message.content.strip()


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place",
        "strict": True,  # without it the engine constrains the arguments to JSON, not to this schema
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_function_calling_returns_a_call_that_fits_the_schema(client: openai.OpenAI, choice: Any) -> None:
    response = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How warm is it in Hanoi?"}],
        tools=[WEATHER],
        tool_choice=choice,
        max_tokens=256,
        extra_body={"chat_template_kwargs": {"thinking": False}},
    )
    call = response.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in ("celsius", "fahrenheit")


def test_function_results_go_back_to_the_model(client: openai.OpenAI) -> None:
    call = {"id": "functions.get_weather:0", "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": '{"unit": "celsius"}'}
    response = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "How warm is it in Hanoi?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "31"},
        ],
        tools=[WEATHER],
        max_tokens=256,
    )
    assert response.choices[0].message.content.strip()


def test_langchain_asks_about_an_image(server: Server) -> None:
    model = ChatOpenAI(model=MODEL, openai_api_base=f"{server.url}/v1", openai_api_key="not-needed")
    message = HumanMessage(
        content=[
            {"type": "text", "text": "What is in this image?"},
            {"type": "image_url", "image_url": {"url": server.image("jpg")}},
        ]
    )
    assert model.invoke([message]).content.strip()

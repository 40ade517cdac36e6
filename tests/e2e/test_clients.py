"""The clients that people have, against the running demo: what each documents that this API promises.

Chats of the OpenAI SDK and LangChain as on NVIDIA's page are in test_page_query_api, raw requests of Claude Code and
Codex in test_request_rules. LiteLLM does not fit beside the engine and runs in an environment of its own.
"""

import json
import re
import subprocess
from typing import Any

import anthropic
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from nimctl.core.demo.phrase import ANSWER, THOUGHT
from tests.conftest import ROOT
from tests.e2e.server import Server

pytestmark = [pytest.mark.engine]
QUIET: dict[str, Any] = {"chat_template_kwargs": {"thinking": False}}
HI: list[Any] = [{"role": "user", "content": "hi"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLIENTS = ROOT / ".venv-clients/bin/python"


class Place(BaseModel):
    """What structured answers are asked to be."""

    city: str


@pytest.fixture(scope="module")
def sdk(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-used", max_retries=0)


@pytest.fixture(scope="module")
def claude(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="not-used", max_retries=0)


@pytest.fixture(scope="module")
def chain(server: Server) -> ChatOpenAI:
    key = SecretStr("not-used")
    return ChatOpenAI(
        model="demo",
        base_url=f"{server.url}/v1",
        api_key=key,
        max_retries=0,
        max_completion_tokens=64,
        extra_body=QUIET,
    )


class TestOpenAI:
    """https://platform.openai.com/docs/api-reference"""

    def test_models(self, sdk: openai.OpenAI) -> None:
        assert "demo" in [model.id for model in sdk.models.list()]
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(model="other", messages=HI)

    def test_a_stream_with_thought_usage_and_probabilities(self, sdk: openai.OpenAI) -> None:
        chunks = list(
            sdk.chat.completions.create(
                model="demo", messages=HI, stream=True, stream_options={"include_usage": True}, logprobs=True,
                top_logprobs=2, temperature=0, seed=1,
            )
        )  # fmt: skip
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        assert "".join(getattr(delta, "reasoning", None) or "" for delta in deltas).strip() == THOUGHT
        assert "".join(delta.content or "" for delta in deltas).strip() == ANSWER
        told = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
        assert told and all(len(entry.top_logprobs) == 2 for one in told for entry in one.content or ())
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens > 10

    def test_an_image_in_the_request(self, server: Server, sdk: openai.OpenAI) -> None:
        parts: list[Any] = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": server.data_url("png"), "detail": "low"}},
        ]
        answer = sdk.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": parts}], extra_body=QUIET, max_completion_tokens=64
        )
        assert answer.choices[0].message.content == ANSWER
        assert answer.usage and answer.usage.prompt_tokens > 8

    def test_an_answer_that_is_parsed(self, sdk: openai.OpenAI) -> None:
        answer = sdk.chat.completions.parse(
            model="demo", messages=HI, response_format=Place, extra_body=QUIET, max_tokens=128, temperature=0
        )
        assert isinstance(answer.choices[0].message.parsed, Place)

    @pytest.mark.parametrize(
        ("constraint", "fits"),
        [
            ({"choice": ["red", "blue"]}, lambda text: text in ("red", "blue")),
            ({"regex": "[0-9]{3}"}, lambda text: len(text) == 3 and text.isdigit()),
            ({"grammar": 'root ::= "yes" | "no"'}, lambda text: text in ("yes", "no")),
            ({"json": CITY}, lambda text: isinstance(json.loads(text)["city"], str)),
        ],
    )
    def test_structured_outputs(self, sdk: openai.OpenAI, constraint: Any, fits: Any) -> None:
        answer = sdk.chat.completions.create(
            model="demo",
            messages=HI,
            max_tokens=128,
            temperature=0,
            extra_body=QUIET | {"structured_outputs": constraint},
        )
        assert fits(answer.choices[0].message.content), answer.choices[0].message

    def test_json_mode(self, sdk: openai.OpenAI) -> None:
        answer = sdk.chat.completions.create(
            model="demo",
            messages=HI,
            max_tokens=128,
            temperature=0,
            response_format={"type": "json_object"},
            extra_body=QUIET,
        )
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)

    def test_tools_by_the_models_choice_and_forced_in_a_stream(self, sdk: openai.OpenAI) -> None:
        tools: list[Any] = [{"type": "function", "function": {"name": "visit", "strict": True, "parameters": CITY}}]
        free = sdk.chat.completions.create(
            model="demo", messages=HI, tools=tools, tool_choice="auto", extra_body=QUIET, max_tokens=64
        )
        assert free.choices[0].message.content == ANSWER  # what this model always chooses
        with sdk.chat.completions.stream(
            model="demo", messages=HI, tools=tools, tool_choice="required", extra_body=QUIET, temperature=0
        ) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
        assert calls
        assert calls[0].function.name == "visit" and "city" in json.loads(calls[0].function.arguments)

    def test_several_answers_that_stop_at_a_word(self, sdk: openai.OpenAI) -> None:
        answer = sdk.chat.completions.create(
            model="demo", messages=HI, n=2, stop=[" weights"], extra_body=QUIET, max_tokens=64
        )
        assert [choice.message.content for choice in answer.choices] == ["This is the nimctl demo model. Its"] * 2

    def test_completions(self, sdk: openai.OpenAI) -> None:
        whole = sdk.completions.create(model="demo", prompt=["one", "two"], max_tokens=4, logprobs=2, echo=True)
        assert [choice.text[:3] for choice in whole.choices] == ["one", "two"]
        assert whole.choices[0].logprobs and whole.choices[0].logprobs.tokens
        stream = sdk.completions.create(model="demo", prompt="one", max_tokens=4, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices).strip()

    def test_responses(self, server: Server, sdk: openai.OpenAI) -> None:
        parts: list[Any] = [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": server.data_url("png"), "detail": "auto"},
        ]
        whole = sdk.responses.create(model="demo", input=[{"role": "user", "content": parts}], max_output_tokens=64)
        assert whole.status == "completed" and whole.output_text.strip() == ANSWER
        assert [item.type for item in whole.output] == ["reasoning", "message"]
        with sdk.responses.stream(model="demo", input="hi", instructions="Be short.", max_output_tokens=64) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert final.output_text.strip() == ANSWER
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
        assert kinds.count("response.output_text.delta") > 3

    def test_responses_with_tools_and_a_form(self, sdk: openai.OpenAI) -> None:
        tool: Any = {"type": "function", "name": "visit", "parameters": CITY, "strict": True}
        called = sdk.responses.create(model="demo", input="hi", tools=[tool], tool_choice="required", temperature=0)
        call, *_ = (item for item in called.output if item.type == "function_call")
        assert call.name == "visit" and "city" in json.loads(call.arguments)
        formed = sdk.responses.parse(model="demo", input="hi", text_format=Place, temperature=0)
        assert isinstance(formed.output_parsed, Place)

    def test_tokens_there_and_back(self, server: Server, sdk: openai.OpenAI) -> None:
        tokens = sdk.post(f"{server.url}/tokenize", body={"model": "demo", "prompt": "hello you"}, cast_to=object)
        assert isinstance(tokens, dict) and tokens["count"] == len(tokens["tokens"]) > 0
        body = {"model": "demo", "tokens": tokens["tokens"]}
        text = sdk.post(f"{server.url}/detokenize", body=body, cast_to=object)
        assert isinstance(text, dict) and "hello you" in text["prompt"]

    def test_what_is_wrong_becomes_the_right_exception(self, sdk: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.chat.completions.create(model="demo", messages=HI, temperature=9)
        assert refused.value.status_code == 400 and "temperature" in str(refused.value.message)
        with pytest.raises(openai.NotFoundError):
            sdk.embeddings.create(model="demo", input="hi")  # this model has none


class TestLangChain:
    """https://docs.langchain.com/oss/python/integrations/chat/openai"""

    def test_a_stream(self, chain: ChatOpenAI) -> None:
        pieces = [chunk.content for chunk in chain.stream("hi")]
        assert "".join(map(str, pieces)) == ANSWER and len(pieces) > 3

    def test_structured_output_and_tools(self, chain: ChatOpenAI) -> None:
        methods: tuple[Any, ...] = ("json_schema", "function_calling")
        for method in methods:
            assert isinstance(chain.with_structured_output(Place, method=method, strict=True).invoke("hi"), Place)
        bound = chain.bind_tools([Place], tool_choice="any", strict=True)
        call, *_ = bound.invoke("hi").tool_calls
        assert call["name"] == "Place" and "city" in call["args"]

    def test_batches_and_responses(self, chain: ChatOpenAI) -> None:
        assert [answer.content for answer in chain.batch(["one", "two"])] == [ANSWER] * 2
        modern = chain.model_copy(update={"use_responses_api": True})
        assert ANSWER in str(modern.invoke("hi").text)


class TestAnthropic:
    """https://docs.anthropic.com/en/api/messages"""

    def test_a_message_with_an_image(self, server: Server, claude: anthropic.Anthropic) -> None:
        data = server.data_url("png").partition("base64,")[2]
        picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        asked: Any = [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]
        answer = claude.messages.create(model="demo", messages=asked, max_tokens=64, system="You are short.")
        assert [block.text.strip() for block in answer.content if block.type == "text"] == [ANSWER]
        assert answer.stop_reason == "end_turn"
        counted = claude.messages.count_tokens(model="demo", messages=asked, system="You are short.")
        assert counted.input_tokens == answer.usage.input_tokens

    def test_a_stream_with_its_thought(self, claude: anthropic.Anthropic) -> None:
        with claude.messages.stream(
            model="demo", messages=HI, max_tokens=1100, thinking={"type": "enabled", "budget_tokens": 1024}
        ) as stream:
            text = "".join(stream.text_stream)
            blocks = [block.type for block in stream.get_final_message().content]
        assert text.strip() == ANSWER and blocks == ["thinking", "text"]

    def test_a_forced_tool_and_its_result(self, claude: anthropic.Anthropic) -> None:
        tools: Any = [{"name": "visit", "description": "Go there", "input_schema": CITY, "strict": True}]
        called = claude.messages.create(
            model="demo",
            messages=HI,
            max_tokens=256,
            extra_body={"temperature": 0},
            tools=tools,
            tool_choice={"type": "tool", "name": "visit"},
        )
        call, *_ = (block for block in called.content if block.type == "tool_use")
        assert call.name == "visit" and "city" in call.input and called.stop_reason == "tool_use"
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
        turns: Any = [*HI, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
        answer = claude.messages.create(model="demo", messages=turns, max_tokens=64, tools=tools)
        assert any(block.type == "text" and block.text.strip() == ANSWER for block in answer.content)

    def test_what_is_wrong_becomes_the_right_exception(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.BadRequestError) as refused:
            claude.messages.create(model="demo", messages=HI, max_tokens=8, extra_body={"temperature": 9})
        document: Any = refused.value.body
        assert (document["type"], document["error"]["type"]) == ("error", "invalid_request_error")
        with pytest.raises(anthropic.NotFoundError) as unknown:
            claude.messages.create(model="other", messages=HI, max_tokens=8)
        document = unknown.value.body
        assert (document["type"], document["error"]["type"]) == ("error", "not_found_error")


def test_the_examples_of_the_page(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """All but LiteLLM's, whose own test makes the same request."""
    page = (ROOT / "docs/serving/clients.md").read_text(encoding="utf-8")
    examples = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "litellm" not in code]
    assert len(examples) == 3
    for code in examples:
        assert "http://127.0.0.1:8000" in code
        exec(code.replace("http://127.0.0.1:8000", server.url), {})
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [ANSWER] * 3


def test_litellm(server: Server) -> None:
    """https://docs.litellm.ai/docs/providers/openai_compatible"""
    if not CLIENTS.exists():
        pytest.skip("the clients' environment is not there: scripts/test makes it")
    script = ROOT / "tests/e2e/clients/with_litellm.py"
    done = subprocess.run(
        [CLIENTS, script, server.url, server.data_url("png")],
        env={**server.environment, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # asks GitHub for prices otherwise
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["chat"] == {"content": ANSWER, "reasoning": THOUGHT}
    assert said["image"] == said["stream"] == said["messages"] == said["responses"] == ANSWER
    assert isinstance(json.loads(said["form"])["city"], str)
    assert said["tool"]["name"] == "visit" and "city" in json.loads(said["tool"]["arguments"])
    assert said["completion"].strip()
    assert said["refused"] == "BadRequestError"

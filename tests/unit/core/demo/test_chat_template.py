"""The chat template, rendered as the engine's tokenizer does it (jinja2 comes with the engine)."""

import json
from typing import Any

import pytest

from nimctl.core.demo.chat_template import CHAT_TEMPLATE

sandbox = pytest.importorskip("jinja2.sandbox", reason="jinja2 comes with the engine")

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "functions.weather:0", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def render(*messages: dict[str, Any], **variables: Any) -> str:
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    text: str = environment.from_string(CHAT_TEMPLATE).render(
        messages=messages, **{"add_generation_prompt": True, **variables}
    )
    return text


def test_a_question_opens_a_thought() -> None:
    assert render({"role": "user", "content": "hi"}) == (
        "<|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|><think>"
    )


def test_thinking_false_closes_it_at_once() -> None:
    assert render({"role": "user", "content": "hi"}, thinking=False).endswith("<|im_middle|><think></think>")
    assert render({"role": "user", "content": "hi"}, thinking=True).endswith("<|im_middle|><think>")


def test_images_become_media_marks_in_their_place() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, {"type": "image_url"}]
    mark = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"
    assert f"<|im_middle|>a{mark}b{mark}<|im_end|>" in render({"role": "user", "content": content})


def test_names_stand_in_for_roles() -> None:
    text = render({"role": "system", "name": "rules", "content": "x"}, {"role": "user", "name": "Ada", "content": "y"})
    assert text.startswith("<|im_system|>rules<|im_middle|>x<|im_end|><|im_user|>Ada<|im_middle|>y<|im_end|>")


def test_tools_are_declared_first() -> None:
    text = render({"role": "user", "content": "hi"}, tools=[TOOL])
    assert text.startswith(f"<|im_system|>tool_declare<|im_middle|>{json.dumps([TOOL])}<|im_end|><|im_user|>")


@pytest.mark.parametrize("arguments", [{"city": "Köln"}, '{"city": "Köln"}'], ids=["parsed", "text"])
def test_tool_calls_and_results_of_earlier_turns_are_kept(arguments: object) -> None:
    call = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    text = render(
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "reasoning": "look it up", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.weather:0", "content": "sunny"},
    )
    assert (
        "<think>look it up</think><|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        '<|tool_call_argument_begin|>{"city": "Köln"}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
        "<|im_system|>tool<|im_middle|>Result of functions.weather:0:\nsunny<|im_end|>"
    ) in text


def test_a_call_without_id_gets_the_native_one() -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": "{}"}}]
    text = render({"role": "assistant", "content": "", "tool_calls": calls})
    assert "<|tool_call_begin|>functions.f:0<|" in text
    assert "<|tool_call_begin|>functions.g:1<|" in text


def test_thoughts_of_finished_answers_are_dropped() -> None:
    text = render(
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first", "reasoning": "secret"},
        {"role": "user", "content": "two"},
    )
    assert "<|im_middle|><think></think>first<|im_end|>" in text
    assert "secret" not in text


def test_without_a_generation_prompt_nothing_is_opened() -> None:
    assert render({"role": "user", "content": "hi"}, add_generation_prompt=False).endswith("hi<|im_end|>")

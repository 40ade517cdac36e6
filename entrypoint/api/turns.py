"""Messages, input items and tools: that they are what their dialect says, and that something is asked at all.

Only the shape is checked here, and only as far as the engine's own answer to a wrong one would be a crash, or a
report that takes seconds and gigabytes: 2,000 input items of no known type are 466,001 errors to the engine.
"""

from collections.abc import Mapping
from typing import Any

from entrypoint.api.items import check_item
from entrypoint.api.refusals import RefusedError, shown
from entrypoint.api.sizes import are_tokens

MESSAGES = 5000
# Input items of types that are not checked here, each of which the engine may report as thirty.
STRANGE = 64
# Blocks that the engine knows: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/anthropic/protocol.py
_BLOCKS = frozenset(
    {"text", "image", "tool_use", "tool_result", "tool_reference", "thinking", "redacted_thinking"}
    | {"tool_addition", "tool_removal"}
)


def check_messages(document: Mapping[str, Any]) -> None:
    """Refuses a chat whose messages are none, are not messages, or all say nothing."""
    messages = _list_of(document.get("messages"), "messages")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RefusedError(f"{where} must be an object with a role", where)
        _check_content(message.get("content"), where)
        for call in entries(message.get("tool_calls")):
            if not isinstance(call, dict) or not isinstance(call.get("function", {}), dict):
                raise RefusedError(f"{where}.tool_calls must be a list of function calls", where)
    if not any(_says(message) for message in messages):
        raise RefusedError("The messages are blank: at least one must say something", "messages")


def check_chat_tools(document: Mapping[str, Any]) -> None:
    """Refuses tools that are not functions with a name."""
    tools = document.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise RefusedError("tools must be a list", "tools")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RefusedError(f"tools[{number}] must be a function with a name", f"tools[{number}]")


def check_prompt(document: Mapping[str, Any]) -> None:
    """Refuses a completion without a prompt, with a blank among its prompts, or with a mixture of kinds."""
    prompt = document.get("prompt")
    if prompt is None and document.get("prompt_embeds"):
        return  # the engine says whether it takes them
    kinds = set(map(type, prompt)) if isinstance(prompt, list) else {type(prompt)}
    several = isinstance(prompt, list) and bool(prompt) and kinds != {int}
    if prompt is None or any(_is_blank(one) for one in (prompt if several else [prompt])):
        raise RefusedError("The prompt is blank: it must hold at least one word or token", "prompt")
    tokens = prompt if kinds == {list} else [prompt] if kinds == {int} and not several else []
    if kinds not in ({str}, {list}, {int}) or not all(isinstance(one, list) and are_tokens(one) for one in tokens):
        raise RefusedError("The prompt must be a text, a list of token ids from 0, or a list of one of these", "prompt")


def _is_blank(prompt: Any) -> bool:
    return (isinstance(prompt, str) and not prompt.strip()) or prompt == []


def check_items(document: Mapping[str, Any]) -> None:
    """Refuses a response's input that is blank, or that holds what is no input item."""
    items = document.get("input")
    if isinstance(items, str) or items is None:
        if not (items or "").strip() and not document.get("previous_response_id"):
            raise RefusedError("The input is blank: it must say something", "input")
        return
    items = _list_of(items, "input", empty=bool(document.get("previous_response_id")))
    strange = 0
    for number, item in enumerate(items):
        strange += not check_item(item, f"input[{number}]", strange=strange < STRANGE)
    if items and all(item.get("type", "message") == "message" and not _says(item) for item in items):
        raise RefusedError("The input is blank: it must say something", "input")


def complete_items(document: Mapping[str, Any]) -> bool:
    """Gives input items what the engine wants and clients leave out; whether it did.

    Images in tool results get a `detail`; the engine does so for the images of messages:
    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/openai/responses/protocol.py
    What the model said earlier becomes one text: the engine reads the first part alone, and fails on none and on a
    refusal: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/openai/responses/utils.py
    """
    done = False
    for item in entries(document.get("input")):
        for part in entries(item.get("output")):
            if isinstance(part, dict) and part.get("type") == "input_image" and "detail" not in part:
                part["detail"] = "auto"
                done = True
        said = item.get("content")
        if item.get("type", "message") == "message" and item.get("role") == "assistant" and isinstance(said, list):
            texts = [part.get("refusal" if part.get("type") == "refusal" else "text") for part in said]
            plain = len(said) == 1 and said[0].get("type") != "refusal"
            if not plain and all(isinstance(text, str) for text in texts):
                item["content"] = [{"type": "output_text", "text": "".join(texts), "annotations": []}]
                done = True
    return done


def check_blocks(document: Mapping[str, Any]) -> None:
    """Refuses blocks and tools of the Messages API that only Anthropic's own servers know."""
    check_messages(document)
    for number, message in enumerate(document["messages"]):
        for block in entries(message.get("content")):
            kind = block.get("type") if isinstance(block, dict) else None
            if not isinstance(kind, str) or kind not in _BLOCKS:
                where = f"messages[{number}].content"
                raise RefusedError(f"{where} holds a block of the type {shown(kind)}, which is not supported", where)
    for number, tool in enumerate(entries(document.get("tools"))):
        if not isinstance(tool, dict) or not isinstance(tool.get("input_schema"), dict):
            kind = tool.get("type") if isinstance(tool, dict) else tool
            raise RefusedError(
                f"tools[{number}] of the type {shown(kind)} is not supported: give it a name and an input_schema",
                "tools",
            )


def _list_of(value: Any, name: str, *, empty: bool = False) -> list[Any]:
    if not isinstance(value, list):
        raise RefusedError(f"{name} must be a list", name)
    if not value and not empty:
        raise RefusedError(f"{name} is empty: at least one is needed", name)
    if len(value) > MESSAGES:
        raise RefusedError(f"{name} has {len(value)} entries, at most {MESSAGES} are allowed", name)
    return value


def entries(value: Any) -> list[Any]:
    """What is in a list; nothing in what is none, which is the engine's to refuse."""
    return value if isinstance(value, list) else []


def _check_content(content: Any, where: str) -> None:
    if content is not None and not isinstance(content, (str, list)):
        raise RefusedError(f"{where}.content must be a text or a list of parts", where)
    if any(not isinstance(part, (dict, str)) for part in entries(content)):
        raise RefusedError(f"{where}.content must be a list of parts", where)


def _says(message: Mapping[str, Any]) -> bool:
    """Whether there is anything in a message but blank text."""
    content = message.get("content")
    if isinstance(content, str):
        return bool(content.strip()) or bool(message.get("tool_calls"))
    texts = (part if isinstance(part, str) else _text(part) for part in entries(content))
    return any(text is None or text.strip() for text in texts) or bool(message.get("tool_calls"))


def _text(part: Mapping[str, Any]) -> str | None:
    """The text of a part that is nothing else."""
    text = part.get("text")
    if part.get("type") in ("text", "input_text", "output_text") and (text is None or isinstance(text, str)):
        return text or ""
    return None

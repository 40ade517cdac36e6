"""Input items of the Responses API, checked as far as the engine's report of wrong ones must be kept short.

The engine tries every wrong item as each of some thirty types: 4,000 with one wrong field are 900,000 errors, half a
minute and 5 GB to it (https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/openai/responses/protocol.py).
The fields are those of https://platform.openai.com/docs/api-reference/responses/create .
"""

from collections.abc import Mapping
from typing import Any

from entrypoint.api.refusals import RefusedError, shown

# What an item of a type must hold; further fields may be there.
ITEMS: Mapping[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "reasoning": (),
}
_TEXTS = ("role", "call_id", "name", "arguments", "input")
_PERHAPS_TEXTS = ("id", "namespace", "encrypted_content")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "role": ("user", "assistant", "system", "developer"),
    "status": ("in_progress", "completed", "incomplete"),
    "phase": ("commentary", "final_answer"),
}
_PART_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "reasoning_text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}
_OTHER_PARTS = ("input_image", "input_file", "input_audio")


def check_item(item: Any, where: str, *, strange: bool) -> bool:
    """Whether an item is of a type known here; of another it passes only if `strange` ones may. Refuses others."""
    if not isinstance(item, dict):
        raise RefusedError(f"{where} must be an object", where)
    kind = item.get("type", "message")
    if not isinstance(kind, str) or (kind not in ITEMS and not strange):
        raise RefusedError(f"{where} is of the type {shown(kind)}, which is not supported", where)
    if kind not in ITEMS:
        return False
    for name in ITEMS[kind]:
        if name not in item or (name in _TEXTS and not isinstance(item[name], str)):
            raise RefusedError(f"{where} must have {name}", where)
    for name in _PERHAPS_TEXTS:
        if not isinstance(item.get(name), (str, type(None))):
            raise RefusedError(f"{where}.{name} must be a text", where)
    for name, words in _WORDS.items():
        if item.get(name) not in (None, *words):
            raise RefusedError(f"{where}.{name} must be one of {', '.join(words)}", where)
    for name in ("content", "output", "summary"):
        _check_parts(item.get(name), f"{where}.{name}", text=name != "summary")
    return True


def _check_parts(parts: Any, where: str, *, text: bool) -> None:
    if parts is None or (text and isinstance(parts, str)):
        return
    if not isinstance(parts, list):
        raise RefusedError(f"{where} must be a {'text or a ' if text else ''}list of parts", where)
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or (kind not in _PART_TEXTS and kind not in _OTHER_PARTS):
            raise RefusedError(f"{where} holds a part of the type {shown(kind)}, which is not supported", where)
        name = _PART_TEXTS.get(kind)
        if name is not None and not isinstance(part.get(name), str):
            raise RefusedError(f"{where} holds a part of the type {kind} without {name}", where)
        for other in ("annotations", "logprobs"):
            listed = part.get(other) or []
            if not isinstance(listed, list) or not all(isinstance(entry, dict) and entry for entry in listed):
                raise RefusedError(f"{where} holds a part whose {other} are no list of objects", where)
        for other in ("image_url", "file_id", "detail"):
            if not isinstance(part.get(other), (str, type(None))):
                raise RefusedError(f"{where} holds a part whose {other} is no text", where)

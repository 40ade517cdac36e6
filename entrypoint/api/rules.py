"""Which rules hold on which route. Pure: a body in, the same body or a refusal out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from entrypoint.api import bodies, schemas, sizes, turns
from entrypoint.api.media import MediaLimits, check_media
from entrypoint.api.refusals import RefusedError


@dataclass(frozen=True)
class Limits:
    """What one server allows. `body` in bytes; `reasons`: the engine skips constraints until a thought has ended."""

    media: MediaLimits
    body: int = bodies.BODY_LIMIT
    reasons: bool = False


class Judged(NamedTuple):
    """A body that the engine may see: as it came, or with what the client's dialect leaves out.

    `constrained`: a schema, expression or grammar of the client must be compiled for it.
    """

    body: bytes
    constrained: bool = False


# Tools that the engine would leave out without a word, where no client expects it to. Others that it leaves out, such
# as web_search and local_shell, are in every request of Codex, which works without them.
_HOSTED = ("file_search", "computer_use_preview")
Document = Mapping[str, Any]
Rule = Callable[[dict[str, Any], Limits], None]


def judge(path: str, body: bytes, limits: Limits) -> Judged:
    """Refuses a body that is against a rule of its route. Raises RefusedError and nothing else."""
    document = bodies.parsed(body, limits.body)
    sizes.check_ignored(document, path)
    sizes.check_sizes(document)
    ROUTES[path](document, limits)
    if path == RESPONSES and turns.complete_items(document):
        body = json.dumps(document).encode("ascii")
    return Judged(body, _is_constrained(document))


def _is_constrained(document: Document) -> bool:
    wanted = [document.get("structured_outputs"), document.get("response_format")]
    wanted += [part.get("format") for part in (document.get("text"), document.get("output_config")) if _is_map(part)]
    return any(wanted) or any(_is_compiled(document, tool) for tool in turns.entries(document.get("tools")))


def _is_compiled(document: Document, tool: Any) -> bool:
    """Whether the engine makes a grammar of a tool's schema: where a call is asked for, or the tool is strict.

    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/tool_parsers/structural_tag_registry.py
    """
    choice = document.get("tool_choice")
    if (choice.get("type") if _is_map(choice) else choice) not in (None, "auto", "none"):
        return True
    function = tool.get("function", tool) if _is_map(tool) else None
    return _is_map(function) and sizes.as_flag(function.get("strict")) is True


def _is_map(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _chat(document: dict[str, Any], limits: Limits) -> None:
    turns.check_messages(document)
    turns.check_chat_tools(document)
    check_media(document, limits.media)
    _constraints(document)
    for number, tool in enumerate(turns.entries(document.get("tools"))):
        where = f"tools[{number}].function.parameters"
        _tool_schema(tool["function"].get("parameters"), where, _is_compiled(document, tool))


def _constraints(document: Document) -> None:
    """`response_format` and `structured_outputs`, which both OpenAI dialects of the engine take."""
    constraint = document.get("structured_outputs")
    if constraint is not None and not isinstance(constraint, dict):
        raise RefusedError("structured_outputs must be an object", "structured_outputs")
    schemas.check_constraint(constraint, "structured_outputs")
    wanted = document.get("response_format")
    if not isinstance(wanted, dict):
        return
    if wanted.get("type") == "json_schema":
        named = wanted.get("json_schema")
        where = "response_format.json_schema.schema"
        schemas.check_schema(named.get("schema") if isinstance(named, dict) else None, where)
    elif wanted.get("type") == "structural_tag":
        schemas.check_tag(wanted, "response_format")


def _tool_schema(schema: Any, where: str, compiled: bool) -> None:
    if schema is not None:
        schemas.check_schema(schema, where, empty=True, followed=compiled)


def _completion(document: dict[str, Any], limits: Limits) -> None:
    turns.check_prompt(document)
    wanted = document.get("response_format")
    asked = document.get("structured_outputs") is not None or (
        isinstance(wanted, dict) and wanted.get("type") not in (None, "text")
    )
    if asked and limits.reasons:
        name = "structured_outputs" if document.get("structured_outputs") is not None else "response_format"
        raise RefusedError(
            f"{name} is not supported on /v1/completions and would be ignored: this model reasons first, and a "
            "completion has no end of reasoning after which the constraint would hold. Use /v1/chat/completions.",
            name,
        )
    _constraints(document)


def _response(document: dict[str, Any], limits: Limits) -> None:
    turns.check_items(document)
    check_media(document, limits.media)
    _constraints({"structured_outputs": document.get("structured_outputs")})
    text = document.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schemas.check_schema(wanted.get("schema"), "text.format.schema")
    for number, tool in enumerate(turns.entries(document.get("tools"))):
        if not isinstance(tool, dict):
            raise RefusedError(f"tools[{number}] must be an object", "tools")
        if tool.get("type") in _HOSTED or (tool.get("type") == "mcp" and tool.get("server_url")):
            raise RefusedError(f"tools[{number}] of the type {tool['type']} is run by OpenAI's servers alone", "tools")
        _tool_schema(tool.get("parameters"), f"tools[{number}].parameters", _is_compiled(document, tool))


def _message(document: dict[str, Any], limits: Limits) -> None:
    turns.check_blocks(document)
    check_media(document, limits.media)
    config = document.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    if isinstance(wanted, dict):
        schemas.check_schema(wanted.get("schema"), "output_config.format.schema")
    for number, tool in enumerate(turns.entries(document.get("tools"))):
        _tool_schema(tool["input_schema"], f"tools[{number}].input_schema", _is_compiled(document, tool))


def _perhaps_messages(document: dict[str, Any], limits: Limits) -> None:
    """Routes that take a text or a conversation: a conversation's media are fetched there too."""
    if document.get("messages") is not None:
        turns.check_messages(document)
        turns.check_chat_tools(document)
        check_media(document, limits.media)


def _nothing_more(document: dict[str, Any], limits: Limits) -> None:
    """Whatever the body's own bounds let through."""


RESPONSES = "/v1/responses"
ROUTES: Mapping[str, Rule] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    RESPONSES: _response,
    "/v1/messages": _message,
    "/v1/messages/count_tokens": _message,
    "/tokenize": _perhaps_messages,
    "/detokenize": _nothing_more,
    "/v1/embeddings": _perhaps_messages,
    "/generative_scoring": _perhaps_messages,
    "/v1/chat/completions/render": _chat,
    "/v1/completions/render": _completion,
    "/inference/v1/generate": _nothing_more,
}

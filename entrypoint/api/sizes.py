"""Numbers and lists that say how much work a request is: what is absurd, and what would be silently ignored.

The engine's own bounds on `max_tokens`, `logprobs`, token ids and penalties are good and are left to it. It takes
`"16"` for 16 and `"yes"` for true, so values are judged as it reads them
(https://docs.pydantic.dev/latest/concepts/conversion_table/).
"""

from collections.abc import Mapping
from typing import Any

from entrypoint.api.refusals import RefusedError

# OpenAI's own highest n: https://platform.openai.com/docs/api-reference/chat/create
ANSWERS = 128
PROMPTS = 1024
STOP_CHARACTERS = 1024
NAME_CHARACTERS = 512
_LENGTHS = {
    "logit_bias": 4096,
    "stop_token_ids": 4096,
    "bad_words": 128,
    "logprob_token_ids": 4096,
    "tools": 1024,
    "documents": 1024,
    "include": 64,
    "metadata": 1024,
    "vllm_xargs": 1024,
    "mm_processor_kwargs": 1024,
    "media_io_kwargs": 1024,
}
_TOKENS = ("allowed_token_ids", "stop_token_ids", "logprob_token_ids", "tokens")
_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
# The engine looks for every size of pattern after every token.
_PATTERNS = {"max_pattern_size": 1024, "min_pattern_size": 1024, "min_count": 1_000_000}

_GUIDED = {
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "guided_choice": "structured_outputs.choice",
    "guided_grammar": "structured_outputs.grammar",
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
    "guided_decoding_backend": "--structured-outputs-config when the server is started",
    "nvext": "the same fields beside `messages`, and structured_outputs for nvext.guided_*",
}
# What the engine takes without a word and does not do, and what does it.
IGNORED: Mapping[str, Mapping[str, str]] = {
    "/v1/chat/completions": _GUIDED
    | {"functions": "tools", "function_call": "tool_choice", "web_search_options": "a tool of your own"},
    "/v1/completions": _GUIDED,
    "/v1/responses": _GUIDED | {"response_format": "text.format", "previous_input_messages": "input"},
    "/v1/messages": _GUIDED
    | {
        "response_format": "output_config.format",
        "structured_outputs": "output_config.format",
        "output_format": "output_config.format",
        "mcp_servers": "tools",
    },
}


def check_ignored(document: Mapping[str, Any], path: str) -> None:
    """Refuses fields that the engine would take and not heed, and names what takes their place."""
    for name, instead in IGNORED.get(path, {}).items():
        if document.get(name) not in (None, [], {}):
            raise RefusedError(f"{name} is not supported here and would be ignored: use {instead}", name)
    answers = 1 if document.get("n") is None else as_number(document["n"])
    if document.get("best_of") is not None and as_number(document["best_of"]) != answers:
        raise RefusedError("best_of is not supported and would be ignored: leave it out, or set n alone", "best_of")
    if as_flag(document.get("include_reasoning")) is False and as_flag(document.get("stream")):
        raise RefusedError(
            "include_reasoning=false is not supported for streaming responses: leave one of include_reasoning and "
            "stream out",
            "include_reasoning",
        )
    modalities = document.get("modalities")
    if isinstance(modalities, list) and any(word != "text" for word in modalities):
        raise RefusedError("modalities other than text are not supported and would be ignored", "modalities")


def check_sizes(document: Mapping[str, Any]) -> None:
    """Refuses absurd counts of answers, prompts, words and names."""
    _check_answers(document)
    _check_lists(document)
    _check_texts(document)
    _check_patterns(document.get("repetition_detection"))
    penalty = as_number(document.get("length_penalty"))
    if penalty is not None and not -10 <= penalty <= 10:
        raise RefusedError("length_penalty must be between -10 and 10", "length_penalty")


def _check_answers(document: Mapping[str, Any]) -> None:
    n = as_number(document.get("n"))
    if n is not None and n > ANSWERS:
        raise RefusedError(f"n is {n:g}, at most {ANSWERS} answers can be asked for at once", "n")
    prompts = document.get("prompt")
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        answers = int(n) if n is not None and n > 0 else 1
        if len(prompts) * answers > PROMPTS:
            raise RefusedError(
                f"The request asks for {len(prompts)} prompts with {answers} answers each, at most {PROMPTS} answers "
                "can be asked for at once",
                "prompt",
            )


def _check_lists(document: Mapping[str, Any]) -> None:
    for name, most in _LENGTHS.items():
        value = document.get(name)
        if isinstance(value, (list, dict)) and len(value) > most:
            raise RefusedError(f"{name} has {len(value)} entries, at most {most} are allowed", name)
    for name in _TOKENS:
        value = document.get(name)
        if isinstance(value, list) and not are_tokens(value):
            raise RefusedError(f"{name} must be a list of token ids, which are whole numbers from 0", name)


def _check_texts(document: Mapping[str, Any]) -> None:
    for name in ("stop", "stop_sequences", "bad_words"):
        words = document.get(name)
        for word in words if isinstance(words, list) else [words]:
            if isinstance(word, str) and len(word) > STOP_CHARACTERS:
                raise RefusedError(f"{name} has a text of more than {STOP_CHARACTERS} characters", name)
    for name in ("model", "request_id", "session_id", "user", "previous_response_id", "prompt_cache_key"):
        value = document.get(name)
        if isinstance(value, str) and len(value) > NAME_CHARACTERS:
            raise RefusedError(f"{name} has more than {NAME_CHARACTERS} characters", name)


def as_number(value: Any) -> float | None:
    """The number that the engine reads, also from a text; None where it reads none."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) else None


def as_flag(value: Any) -> bool | None:
    """What the engine takes for true or false; None for all else."""
    if isinstance(value, str):
        return _FLAGS.get(value.lower())
    return bool(value) if isinstance(value, (int, float)) and value in (0, 1) else None


def are_tokens(values: list[Any]) -> bool:
    """Whether all are whole numbers from 0. The engine would report each that is not, a million one by one."""
    return not values or (set(map(type, values)) == {int} and min(values) >= 0)


def _check_patterns(detection: Any) -> None:
    for name, most in _PATTERNS.items():
        value = as_number(detection.get(name)) if isinstance(detection, dict) else None
        if value is not None and value > most:
            raise RefusedError(f"repetition_detection.{name} is more than {most}", "repetition_detection")

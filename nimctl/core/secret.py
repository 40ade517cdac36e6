"""Secrets: values that never print, and a filter for text that other programs wrote."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

MASK = "***"
# Shorter texts are no keys; masking them would make a log unreadable.
_SHORTEST = 6

# NVIDIA personal keys, Hugging Face tokens and authorization headers, as other programs print them.
_SHAPES = re.compile(
    r"nvapi-[A-Za-z0-9_\-]{8,}|hf_[A-Za-z0-9]{8,}|(?<=Bearer )[A-Za-z0-9._\-]{8,}|(?<=Basic )[A-Za-z0-9+/=]{8,}"
)
_WITH_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s/?#@:]*:[^\s/?#@]+@")

# Every variable that is known to hold a key of ours.
KEY_VARIABLES = ("NGC_API_KEY", "NGC_CLI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

# TOKEN ends the name: elsewhere, as in ..._TOKEN_THRESHOLD and ..._TOTAL_TOKENS, the tokens of a model are meant.
_NAMES = re.compile(
    r"(^|_)(\w*KEYS?|\w*SECRETS?|\w*PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_(?!FILE$|PATH$|DIR$)|$)|(^|_)(TOKEN|PAT)$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a key; one that holds the path of a key does not."""
    return bool(_NAMES.search(name))


def keys_in_words(words: Sequence[str]) -> tuple[str, ...]:
    """The keys among the words of a command: `--hf-token KEY`, `--hf-token=KEY`, and in JSON values by their names."""
    found: list[str] = []
    for index, word in enumerate(words):
        name, given, value = word.partition("=")
        if not name.startswith("-"):
            continue
        if not given and index + 1 < len(words) and not words[index + 1].startswith("-"):
            value = words[index + 1]
        # `--config.member value` sets a member of a JSON value
        if value and is_secret_name(re.sub(r"[-.]", "_", name.lstrip("-"))):
            found.append(value)
        elif value.startswith(("{", "[")):
            try:
                found += _members(json.loads(value))
            except (ValueError, RecursionError):
                continue
    return tuple(key for key in found if len(key) >= _SHORTEST)


def _members(value: Any) -> list[str]:
    """The texts below members whose names are those of keys."""
    if isinstance(value, list):
        return [key for one in value for key in _members(one)]
    if not isinstance(value, dict):
        return []
    named = [
        text for name, text in value.items() if isinstance(text, str) and is_secret_name(re.sub(r"[-.]", "_", name))
    ]
    return named + [key for one in value.values() for key in _members(one)]


class Secret:
    """A string that shows itself as `***` wherever it is printed, formatted or logged; `reveal()` is the one way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is never pickled")


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """`text` without the given secrets and without anything that is shaped like a known key."""
    for secret in secrets:
        if value := secret.reveal():
            text = text.replace(value, MASK)
    return _SHAPES.sub(MASK, text)


def holds_secret(text: str) -> bool:
    """Whether something in `text` is shaped like a known key, or is an address with a password."""
    return _SHAPES.search(text) is not None or _WITH_PASSWORD.search(text) is not None

"""Secrets: values that never print, and a filter for text that other programs wrote."""

import re
from collections.abc import Iterable

MASK = "***"

# NVIDIA personal keys, Hugging Face tokens and authorization headers, as other programs print them.
_SHAPES = re.compile(
    r"nvapi-[A-Za-z0-9_\-]{8,}|hf_[A-Za-z0-9]{8,}|(?<=Bearer )[A-Za-z0-9._\-]{8,}|(?<=Basic )[A-Za-z0-9+/=]{8,}"
)

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

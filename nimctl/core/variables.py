"""Variables of the container that host and container read alike: how a text becomes a value, and what a row is."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nimctl.core.errors import NimctlError

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Reader(NamedTuple):
    """How the text of a variable becomes a value: what is allowed, in words, and who reads it (else ValueError)."""

    words: str
    read: Callable[[str], Any]


class Variable(NamedTuple):
    """One variable: the field of the container's settings that it fills, how it is read, its default, its meaning.

    `option` is the engine's argument that it sets; `aliases` are other names of the same, which count after its own.
    `field` is empty where the value is for the engine alone; there, `given` makes the option's value of it.
    """

    name: str
    field: str
    reader: Reader
    default: str | None
    help: str
    option: str | None = None
    aliases: tuple[str, ...] = ()
    given: Callable[[Any], Any] | None = None

    def set_as(self, environ: Mapping[str, str]) -> str | None:
        """The first of its names that is set to something; an empty variable counts as not set."""
        return next((name for name in (self.name, *self.aliases) if environ.get(name)), None)

    def value(self, text: str, name: str | None = None) -> Any:
        """What `text` says, given under `name`. Raises `config-invalid`."""
        try:
            return self.reader.read(text)
        except (ValueError, RecursionError) as error:
            name = name or self.name
            raise NimctlError(
                "config-invalid",
                f"{name}={text} cannot be used",
                cause=str(error),
                fix=f"Correct or unset {name}. {self.help}",
            ) from error


def count(lowest: int, highest: int | None = None) -> Reader:
    """A whole number within limits, both included."""
    words = f"a whole number from {lowest}" + (f" to {highest}" if highest is not None else " on")
    most = 2**31 if highest is None else highest

    def read(value: str) -> int:
        if not (value.isascii() and value.isdecimal() and len(value) < 12 and lowest <= int(value) <= most):
            raise ValueError(f"{words} is expected")
        return int(value)

    return Reader(words, read)


def one_of(*allowed: str, fold: Callable[[str], str] = str) -> Reader:
    """One of these words."""

    def read(value: str) -> str:
        if fold(value) not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is expected")
        return fold(value)

    return Reader(", ".join(allowed), read)


def _share(value: str) -> float:
    found = float(value)
    if not 0 < found <= 1:
        raise ValueError("a share above 0 and up to 1 is expected, such as 0.9")
    return found


def _switch(value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise ValueError("1 or 0 is expected (true, yes, on, and their contraries are read too)")
    return value.lower() in _TRUE


def _object(value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise ValueError(f"a JSON object is expected: {error}") from None
    if not isinstance(found, dict):
        raise ValueError('a JSON object is expected, such as {"num_speculative_tokens": 3}')
    return found


TEXT = Reader("text", str)
SHARE = Reader("a share above 0 and up to 1", _share)
SWITCH = Reader("1 or 0", _switch)
NOT_SWITCH = Reader("1 or 0", lambda value: not _switch(value))
OBJECT = Reader("a JSON object", _object)

"""A request's body: read within bounds, parsed within bounds, and measured before anybody walks it.

The engine parses a body a second time and checks it against its models, whose report of errors grows with the number
of wrong items (https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/serve/exception_handling/handlers/validation.py):
what is absurdly large, deep or not a number must end here.
"""

import json
import math
from typing import Any, NoReturn

from entrypoint.api.refusals import RefusedError

# A little more than the front lets through by default (64 MiB); the front's own limit is the one to set.
BODY_LIMIT = 65 * 2**20
# Commas and opening brackets: what a parser has to make objects of. A token list of the longest context fits 4 times.
MARKS = 2**20
# Values, where a list of plain numbers counts as few: the longest agent conversations have some 20,000.
VALUES = 200_000
# Nothing that the API defines goes deeper than a schema, which the engine takes up to 64 levels deep.
DEPTH = 80
# What the engine's own transport can carry: https://github.com/msgpack/msgpack/blob/master/spec.md
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_HALVES = (b"\\ud", b"\\uD")


def parsed(body: bytes, limit: int = BODY_LIMIT) -> dict[str, Any]:
    """The JSON object in `body`, within all bounds. Raises RefusedError and nothing else."""
    if len(body) > limit:
        raise RefusedError(f"The request body is larger than {limit} bytes", status=413)
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MARKS:
        raise RefusedError(f"The request body holds more than {MARKS} items")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(f"The request body is not UTF-8: byte {error.start} cannot be read") from None
    try:
        document = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise RefusedError(f"The request body is nested deeper than {DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"The request body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        raise RefusedError("The request body holds a number with too many digits") from None
    if not isinstance(document, dict):
        raise RefusedError("The request body is not a JSON object")
    measure(document, pairs=any(half in body for half in _HALVES))
    return document


def _no_number(name: str) -> NoReturn:
    raise RefusedError(f"{name} is not a number of JSON: https://www.rfc-editor.org/rfc/rfc8259#section-6")


def measure(document: dict[str, Any], *, pairs: bool = True) -> None:
    """Refuses too many values, too deep nesting, numbers beyond 64 bits and, with `pairs`, halves of characters."""
    waiting: list[tuple[Any, int]] = [(document, 1)]
    values = 0
    while waiting:
        container, depth = waiting.pop()
        inner = container
        if isinstance(container, dict):
            inner = container.values()
            if pairs:
                for name in container:
                    _check_text(name)
        elif len(container) > 64 and set(map(type, container)) == {int}:
            values += len(container) // 64  # tokens: cheap for everybody
            inner = (min(container), max(container))
        values += len(inner)
        if depth > DEPTH:
            raise RefusedError(f"The request body is nested deeper than {DEPTH} levels")
        if values > VALUES:
            raise RefusedError(f"The request body holds more than {VALUES} values")
        for value in inner:
            if isinstance(value, (dict, list)):
                waiting.append((value, depth + 1))
            elif isinstance(value, str):
                if pairs:
                    _check_text(value)
            else:
                _check_number(value)


def _check_number(value: float | None) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RefusedError("The request body holds a number that is too large")
    elif value is not None and not _SMALLEST <= value <= _LARGEST:
        raise RefusedError("The request body holds a number that does not fit in 64 bits")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RefusedError(
                "The request body holds half of a surrogate pair, which is no character: "
                "https://www.rfc-editor.org/rfc/rfc8259#section-8.2"
            ) from None

"""Schemas, expressions and grammars that a request may constrain its answer with: what is empty or hostile.

They are compiled inside the engine, for all requests by a few threads, and the time grows with the square of some
sizes: an enumeration of 10,000 words holds xgrammar 0.2.8 for half a minute. The bounds are those that OpenAI states
for the same field (https://platform.openai.com/docs/guides/structured-outputs), but for the depth, which is the
engine's (https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/sampling_params.py), and for members of one object.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from entrypoint.api.refusals import RefusedError, shown

DEPTH = 64
ENUMERATED = 1000
MEMBERS = 500
NODES = 10_000
CHARACTERS = 120_000
PATTERN = 2048
# xgrammar 0.2.8 fails to compile a schema whose `pattern` counts further, and the engine says no more than "error 500".
COUNT = 128
# What a pattern says once its counts are written out, and how deep its groups go.
PATTERN_COST = 5000
PATTERN_DEPTH = 50
GRAMMAR = 64 * 1024
CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")

_LITERAL = frozenset({"enum", "const", "default", "examples"})  # what stands there is data, no schema
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_COUNT = re.compile(r"\{(\d{0,9})(,?)(\d{0,9})\}")


def check_schema(schema: Any, where: str, *, empty: bool = False, followed: bool = True) -> None:
    """Refuses a schema that is not one, that says nothing (unless `empty` is fine), or that is hostile.

    Where its references are not `followed`, the model only reads it, and they may lead wherever they want.
    """
    if not isinstance(schema, dict):
        raise RefusedError(f"{where} is not a JSON schema: an object is expected", where)
    if not schema and not empty:
        raise RefusedError(f"{where} is empty: name at least a type, or leave the constraint out", where)
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    nodes = enumerated = characters = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += len(node)
        if depth > DEPTH:
            raise RefusedError(f"{where} is nested deeper than {DEPTH} levels", where)
        if nodes > NODES:
            raise RefusedError(f"{where} is too large: more than {NODES} entries", where)
        if isinstance(node, dict):
            characters += sum(map(len, node))
            enumerated += _check_node(node, where, PATTERN_COST if empty else COUNT)
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, (dict, list)):
                waiting.append((value, depth + 1))
    if enumerated > ENUMERATED:
        raise RefusedError(f"{where} enumerates {enumerated} values, at most {ENUMERATED} are allowed", where)
    if characters > CHARACTERS:
        raise RefusedError(f"{where} is too large: more than {CHARACTERS} characters", where)
    _check_references(schema, where, followed=followed)


def _check_node(node: dict[str, Any], where: str, most: int) -> int:
    """Refuses what one level of a schema may not say; the number of values that it enumerates."""
    for key in _NAMED:
        named = node.get(key)
        if isinstance(named, dict) and len(named) > MEMBERS:
            raise RefusedError(f"{where} has an object of {len(named)} members, at most {MEMBERS} are allowed", where)
        if key == "patternProperties" and isinstance(named, dict):
            for pattern in named:
                check_pattern(pattern, where, most)
    if isinstance(pattern := node.get("pattern"), str):
        check_pattern(pattern, where, most)
    values = node.get("enum")
    return len(values) if isinstance(values, list) else 0


def _subschemas(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every level of a schema, without the data in it."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            for key, value in node.items():
                if key in _NAMED and isinstance(value, dict):
                    waiting += value.values()
                elif key not in _LITERAL and not key.startswith("x-"):
                    waiting.append(value)


def _check_references(root: dict[str, Any], where: str, *, followed: bool) -> None:
    """Refuses a reference out of the schema (it would be ignored), to nothing, and to itself (it has no end)."""
    ended: set[int] = set()  # from where the way is known: each level is gone through once
    for start in _subschemas(root):
        node: Any = start
        way: set[int] = set()
        while isinstance(node, dict) and id(node) not in ended:
            if id(node) in way or any(_pointed(root, part.get("$ref")) is node for part in _parts(node)):
                raise RefusedError(f"{where} refers to itself without end", where)
            way.add(id(node))
            reference = node.get("$ref")
            if not isinstance(reference, str):
                break
            node = _pointed(root, reference)
            if node is None and followed:
                raise RefusedError(f"{where} refers to {shown(reference)}, which is not in the schema", where)
        ended |= way


def _parts(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold where the level refers to nothing itself: all of `allOf`, and a choice that leaves none."""
    parts: list[Any] = []
    if not isinstance(node.get("$ref"), str):
        for key in ("allOf", "anyOf", "oneOf"):
            members = node.get(key)
            if isinstance(members, list) and (key == "allOf" or len(members) == 1):
                parts += members
    return [part for part in parts if isinstance(part, dict)]


def _pointed(root: dict[str, Any], reference: Any) -> dict[str, Any] | bool | None:
    """What a reference into this schema points at (https://www.rfc-editor.org/rfc/rfc6901); None: nothing."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    node: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(name)
        elif isinstance(node, list) and name.isascii() and name.isdecimal() and int(name[:9]) < len(node):
            node = node[int(name[:9])]
        else:
            return None
    return node if isinstance(node, (dict, bool)) else None


def check_pattern(pattern: Any, where: str, most: int = PATTERN_COST) -> None:
    """Refuses an expression that is too long, too deep, that counts further than `most`, or too far once multiplied."""
    if not isinstance(pattern, str):
        return  # the engine says what it expects
    if len(pattern) > PATTERN:
        raise RefusedError(f"{where} holds an expression of more than {PATTERN} characters", where)
    if "\x00" in pattern:
        raise RefusedError(f"{where} holds an expression with a NUL character", where)
    groups: list[int] = [0]
    last = place = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "{" and (count := _COUNT.match(pattern, place)):
            times = max(1, int(count[1] or 0), int(count[3] or 0))
            if times > most:
                raise RefusedError(
                    f"{where} holds an expression that counts to {times}, at most {most} is allowed", where
                )
            groups[-1] += last * (times - 1)
            last *= times
            place = count.end()
        elif character == "(":
            groups.append(0)
            place += 1
        elif character == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
            place += 1
        else:
            place = _after_atom(pattern, place)
            last = 1
            groups[-1] += 1
        if max(groups[-1], last) > PATTERN_COST or len(groups) > PATTERN_DEPTH:
            raise RefusedError(f"{where} holds an expression that counts too far or nests too deeply", where)


def _after_atom(pattern: str, place: int) -> int:
    """The place after an escape, a set of characters, or a character."""
    if pattern[place] == "\\":
        return place + 2
    if pattern[place] != "[":
        return place + 1
    place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1


def check_constraint(constraint: Any, where: str) -> None:
    """Refuses what `structured_outputs` may not hold: https://docs.vllm.ai/en/v0.32.0/features/structured_outputs.html"""
    if not isinstance(constraint, dict):
        return
    if all(constraint.get(name) is None for name in CONSTRAINTS):
        raise RefusedError(f"{where} holds no constraint: set one of {', '.join(CONSTRAINTS)}", where)
    if (schema := constraint.get("json")) is not None:
        check_schema(_read(schema, f"{where}.json"), f"{where}.json")
    for name in ("regex", "whitespace_pattern"):
        check_pattern(constraint.get(name), f"{where}.{name}")
    if isinstance(choice := constraint.get("choice"), list):
        _check_choice(choice, f"{where}.choice")
    if isinstance(grammar := constraint.get("grammar"), str):
        _check_grammar(grammar, f"{where}.grammar")
    if (tag := constraint.get("structural_tag")) is not None:
        check_tag(_read(tag, f"{where}.structural_tag"), f"{where}.structural_tag")


def _read(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > 2 * CHARACTERS:
        raise RefusedError(f"{where} is too large: more than {2 * CHARACTERS} characters", where)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RefusedError(f"{where} is not JSON", where) from None


def _check_choice(choice: list[Any], where: str) -> None:
    if not choice or not all(isinstance(word, str) and word for word in choice):
        raise RefusedError(f"{where} must be a list of words, none of them empty", where)
    if len(choice) > ENUMERATED or sum(map(len, choice)) > CHARACTERS:
        raise RefusedError(f"{where} is too large: at most {ENUMERATED} words are allowed", where)


def _check_grammar(grammar: str, where: str) -> None:
    if not grammar.strip():
        raise RefusedError(f"{where} is empty", where)
    if len(grammar) > GRAMMAR:
        raise RefusedError(f"{where} is too large: more than {GRAMMAR} characters", where)
    depth = deepest = 0
    for character in grammar:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > DEPTH:
        raise RefusedError(f"{where} is nested deeper than {DEPTH} levels", where)
    if grammar.count("|") > ENUMERATED or grammar.count("::=") > ENUMERATED:
        raise RefusedError(f"{where} is too large: more than {ENUMERATED} alternatives or rules", where)
    if any(int(number) > PATTERN_COST for found in _COUNT.finditer(grammar) for number in found.group(1, 3) if number):
        raise RefusedError(f"{where} counts further than {PATTERN_COST}", where)


def check_tag(tag: Any, where: str) -> None:
    """Refuses a structural tag with a hostile schema or expression in it."""
    if not isinstance(tag, dict) or not tag:
        raise RefusedError(f"{where} must be an object that is not empty", where)
    waiting: list[tuple[Any, int]] = [(tag, 1)]
    nodes = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += len(node)
        if depth > DEPTH or nodes > NODES:
            raise RefusedError(f"{where} is too deep or too large", where)
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("schema", "json_schema") and isinstance(value, dict):
                check_schema(value, where, empty=True)
            elif key == "pattern":
                check_pattern(value, where)
            elif key == "grammar" and isinstance(value, str):
                _check_grammar(value, where)
            elif isinstance(value, (dict, list)):
                waiting.append((value, depth + 1))

"""Situations as data: read from YAML, and turned into the facts of a whole host."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nimctl.core.facts import HostFacts, from_json, to_json
from nimctl.core.plain import from_plain
from nimctl.core.yamlfile import read_yaml
from tests.hosts.bases import BASES

FOLDER = Path(__file__).parent / "situations"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Situation:
    """A host as it was met, and what the doctor must say of it, and nothing besides.

    `changes` are the facts that differ from those of `base`, nested as in the document of `--save-facts`. A list is
    replaced, unless a mapping changes it: that has for keys "all", an index or a range ("2-3"), or `keep` with a number
    of items to keep from the first on.

    `fails` are the ids of what fails, in order; `warns` and `notes` those of warnings, loud and of severity info;
    `untold` the checks that cannot tell. `says` are words without which the people in the thread are not helped,
    `begin` words of the fix with which the report tells them to start.
    """

    name: str
    base: str
    met: str  # what happened there, in a sentence
    link: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: str = "kimi-k2.5"
    gpus: str | None = None
    runtime: Literal["docker", "process"] = "docker"
    fails: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()

    def facts(self) -> HostFacts:
        """The whole host. Raises `facts-invalid` where a change fits no fact."""
        return from_json(changed(to_json(BASES[self.base]), self.changes))


def load() -> tuple[Situation, ...]:
    """All situations, in the order of the files and in them. Raises ValueError for one that fits no `Situation`."""
    return tuple(
        from_plain(Situation, entry, path.name) for path in sorted(FOLDER.glob("*.yaml")) for entry in read_yaml(path)
    )


def changed(value: Any, change: Any) -> Any:
    """`value` with `change` laid over it. Raises ValueError for a change of what is not there."""
    if not isinstance(change, Mapping):
        return change
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _changed_items(list(value), change)
    return {**(value or {}), **{key: changed((value or {}).get(key), part) for key, part in change.items()}}


def _changed_items(items: list[Any], change: Mapping[Any, Any]) -> list[Any]:
    for key, part in change.items():
        if key == "keep":
            items = items[:part]
            continue
        for index in _indices(str(key), len(items)):
            items[index] = changed(items[index], part)
    return items


def _indices(key: str, length: int) -> range:
    if key == "all":
        return range(length)
    found = _RANGE.fullmatch(key)
    indices = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not indices or indices[-1] >= length:
        raise ValueError(f"{key!r} names none of {length} items")
    return indices

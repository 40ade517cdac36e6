"""A lock as text: the same lock gives the same bytes, and one change gives one changed line. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nimctl.core.plain import to_plain
from nimctl.lock.model import Lock

# The order for whoever reads it: what it is, what is started, what is served, how.
_ORDER = (
    "schema", "nimctl", "model", "image", "weights", "recipe", "layout", "gpus", "engine", "variables", "container",
)  # fmt: skip
# Lists of these have one entry a line: a checkpoint's files read and compare like a table.
_ROWS = frozenset({"files", "options"})


def write(lock: Lock) -> str:
    """The document, with a line feed at its end. Mappings are sorted by key, sequences as they are."""
    plain = to_plain(lock)
    if lock.weights is not None:
        for file in plain["weights"]["files"]:
            file.pop("version")  # what a source calls a state of a file says nothing to another
    ordered = {name: plain[name] for name in _ORDER}
    return _block(ordered, 0, name="") + "\n"


def digest_of(text: bytes) -> str:
    """The SHA-256 of a lock file as it lies there, by which a run names the lock that it was started from."""
    return "sha256:" + hashlib.sha256(text).hexdigest()


def _block(value: Any, depth: int, *, name: str) -> str:
    if not isinstance(value, (Mapping, list, tuple)) or not value:
        return _line(value)
    inner, margin = "  " * (depth + 1), "  " * depth
    if isinstance(value, Mapping):
        pairs = value.items() if depth == 0 or not _is_table(name) else sorted(value.items())
        rows = [f"{json.dumps(key)}: {_entry(item, depth + 1, name=key, row=name in _ROWS)}" for key, item in pairs]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{margin}}}"
    rows = [_entry(item, depth + 1, name="", row=name in _ROWS) for item in value]
    return "[\n" + ",\n".join(inner + row for row in rows) + f"\n{margin}]"


def _entry(value: Any, depth: int, *, name: str, row: bool) -> str:
    return _line(value) if row else _block(value, depth, name=name)


def _is_table(name: str) -> bool:
    """Whether the keys are data and not fields: a field keeps the place that the model gives it."""
    return name in ("manifests", "labels", "arguments", "options", "tmpfs", "variables")


def _line(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)

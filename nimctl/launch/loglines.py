"""The few lines of a long log that say why a server died. Pure."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from nimctl.core.errors import CATALOGUE, NimctlError
from nimctl.core.logshape import said
from nimctl.core.secret import redact

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CAUSE = re.compile(
    r"\b\w*(Error|Exception)\b(: |$)|out of memory|no space left|permission denied|error\[|\bKilled\b"
    r"|segmentation fault|\[(emerg|crit)\]|\bfatal\b|unrecognized arguments|cannot open shared object|\bXid\b",
    re.IGNORECASE,
)
_GRAVE = re.compile(r'(ERROR|CRITICAL) |\{"level": "(ERROR|CRITICAL)"')
_COMPLAINT = re.compile(r"\b(ERROR|CRITICAL|error|failed|cannot|refused)\b")
# Frames of a Python traceback, also behind a logger's prefix.
_FRAME = re.compile(
    r'(^|\s)File "[^"]+", line \d+|Traceback \(most recent|\^\^\^|The above exception was|During handling'
)
_WIDTH = 300


def relevant(lines: Iterable[str], limit: int = 8) -> tuple[str, ...]:
    """The last lines that name a cause; where there are few, those that complain; where there are none, the last."""
    clean: list[str] = []
    grave: set[int] = set()  # what a server's own log calls an error, whatever its words are
    for line in lines:
        for text in said(bare := _COLOUR.sub("", line).strip()):
            if text.strip():
                clean.append(text.strip())
                if text is not bare and _GRAVE.match(bare):
                    grave.add(len(clean) - 1)
    causes = [i for i, text in enumerate(clean) if _CAUSE.search(text) and not _FRAME.search(text)]
    chosen = causes[-limit:]
    if len(chosen) < 3:
        complaints = [
            i for i, text in enumerate(clean) if (i in grave or _COMPLAINT.search(text)) and not _FRAME.search(text)
        ]
        chosen = sorted({*chosen, *complaints[len(chosen) - limit :]})
    texts = [clean[i] for i in chosen[-limit:]] or clean[-limit:]
    return tuple(dict.fromkeys(redact(text[:_WIDTH]) for text in texts))


def error_from_json(data: Any) -> NimctlError | None:
    """The error that a server described with `NimctlError.to_json`; None when it is not one."""
    if not isinstance(data, dict) or not all(isinstance(data.get(k), str) for k in ("id", "message", "cause", "fix")):
        return None
    evidence = data.get("evidence")
    lines = [str(line) for line in evidence] if isinstance(evidence, list) else []
    try:
        known = data["id"] if data["id"] in CATALOGUE else "container-died"
        return NimctlError(known, data["message"], cause=data["cause"], fix=data["fix"], evidence=lines)
    except ValueError:
        return None


def recorded_error(lines: Sequence[str]) -> NimctlError | None:
    """The last error that a server wrote into its log as a JSON object, alone or as its `error`."""
    for line in reversed(lines):
        start = line.find("{")
        if start < 0 or '"cause"' not in line:
            continue
        try:
            data = json.loads(line[start:])
        except ValueError:
            continue
        inner = data.get("error") if isinstance(data, dict) and isinstance(data.get("error"), dict) else data
        if error := error_from_json(inner):
            return error
    return None

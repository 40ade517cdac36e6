"""What the supervisors of a group say to each other: JSON objects, one a line, bounded. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from entrypoint.group import Status
from nimctl.core.errors import CATALOGUE, NimctlError

PROTOCOL = 1
# A hello holds the engine's arguments, an error some lines of a log: nothing honest is longer.
LONGEST = 65_536
_LONGEST_TEXT = 4096
_LONGEST_IDLE = 1e9  # seconds: decades


class WireError(Exception):
    """Somebody else than a supervisor of our version talks to us."""


def encode(kind: str, **fields: Any) -> bytes:
    """One message."""
    return json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"


class Reader:
    """Puts the bytes of a connection together to messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete now. Raises WireError for anything else than messages."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST or any(len(line) > LONGEST for line in lines):
            raise WireError("a line is too long")
        return [_message(line) for line in lines]


def _message(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError("it is not JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise WireError("it is no message")
    return found


def text(value: object) -> str:
    """What somebody says of himself, fit to be shown."""
    if not isinstance(value, (str, int, float)):
        return ""
    return "".join(c if c.isprintable() or c in "\t\n" else "?" for c in str(value)[:_LONGEST_TEXT])


def error_of(value: object) -> NimctlError | None:
    """The `to_json` form of an error as the error it was; None for anything else."""
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str) or value["id"] not in CATALOGUE:
        return None
    message, cause, fix = (text(value.get(name)) for name in ("message", "cause", "fix"))
    evidence = value.get("evidence")
    lines = tuple(text(line) for line in evidence[:10]) if isinstance(evidence, list) else ()
    return NimctlError(
        value["id"],
        message or "it failed",
        cause=cause or "it says nothing more",
        fix=fix or "Read its log.",
        evidence=lines,
    )


def facts_of(value: object) -> dict[str, str]:
    """The facts of a hello."""
    return {text(k): text(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def beat(status: Status) -> bytes:
    """A sign of life."""
    return encode(
        "beat", stage=status.stage, detail=status.detail[:200], idle=round(status.idle, 1), ready=status.ready
    )


def status_of(message: Mapping[str, Any]) -> Status:
    """What a sign of life says."""
    idle = message.get("idle")
    seconds = float(idle) if isinstance(idle, (int, float)) and 0 <= idle < _LONGEST_IDLE else 0.0
    return Status(text(message.get("stage")), text(message.get("detail")), seconds, message.get("ready") is True)

"""The one shape of every line in a container's log, for people and as JSON. Pure.

    INFO 2026-03-03 12:00:10.079 weights checkpoint.py:42] the message            (a line of ours)
    WARNING 2026-03-03 12:00:10.079 engine/Worker_TP3 core.py:42] the message     (one of a process of the engine)

As JSON the members of NIM come first, null where they are not known, so that what reads NIM's log reads this one:
https://docs.nvidia.com/nim/large-language-models/latest/reference/logging-and-observability.html . Times are UTC.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What the engine is started with follows these words in a line of the stage `engine`, quoted as for a shell.
ENGINE_STARTS = "starting: "

_HUMAN = re.compile(
    r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d{4}-\d\d-\d\d [\d:]{8}\.\d{3} (?P<source>\S+)"
    r"(?: (?P<file>\S+):(?P<line>\d+))?\] (?P<message>.*)$"
)


@dataclass(frozen=True)
class Record:
    """One thing that was said: when (seconds since 1970), how grave, by whom, where in the code.

    `stage` is the part of the server that speaks, `process` the one of its processes where it has several, `pid` that
    one's number in the container. `request_id` is that of the request it is about. `more` are members that only JSON
    shows, such as `event` and `seconds`.
    """

    level: str
    time: float
    stage: str
    message: str
    file_name: str | None = None
    line_number: int | None = None
    process: str | None = None
    pid: int | None = None
    request_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def as_text(record: Record) -> str:
    """The record as lines for people; each has the whole prefix, so that none is without level and time."""
    moment, millis = _moment(record.time)
    source = f"{record.stage}/{record.process}" if record.process else record.stage
    where = f" {record.file_name}:{record.line_number}" if record.file_name and record.line_number else ""
    prefix = f"{record.level} {moment}.{millis:03d} {'_'.join(source.split())}{where}] "
    return "\n".join(prefix + line for line in record.message.splitlines() or [""])


def as_json(record: Record) -> str:
    """The record as one JSON object on one line; ASCII alone, so that no reader sees a line break in it."""
    moment, millis = _moment(record.time)
    document: dict[str, Any] = {
        "level": record.level,
        "time": f"{moment.replace(' ', 'T')}.{millis:03d}Z",
        "file_name": record.file_name,
        "line_number": record.line_number,
        "message": record.message,
        "stage": record.stage,
    }
    known = {"process": record.process, "pid": record.pid, "request_id": record.request_id}
    document |= {name: value for name, value in known.items() if value is not None}
    return json.dumps(document | dict(record.more))


def said(line: str) -> tuple[str, ...]:
    """The lines of the message in a line of such a log; a line of any other shape as it is."""
    if match := _HUMAN.match(line):
        return (match["message"],)
    if line.startswith('{"level"'):
        try:
            document = json.loads(line)
        except ValueError:
            return (line,)
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            return tuple(document["message"].splitlines())
    return (line,)


def _moment(seconds: float) -> tuple[str, int]:
    whole, millis = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole)), millis

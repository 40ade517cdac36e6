"""Lines of JSON on stderr: how far a long step is and, with `--progress json`, all that people would read there."""

import json
import sys
from collections.abc import Mapping
from typing import IO, Any, cast

from nimctl.core.stages import PROGRESS_SCHEMA
from nimctl.render.words import shown


def write(event: str, content: Mapping[str, Any]) -> None:
    """One line: `event` is `progress`, `note` or `error`."""
    line = json.dumps({"schema": PROGRESS_SCHEMA, "event": event, **content}, ensure_ascii=False)
    sys.stderr.write(shown(line) + "\n")
    sys.stderr.flush()


def notes() -> IO[str]:
    """A file for people's text, each line of which becomes a `note` on stderr."""
    return cast("IO[str]", _Notes())


class _Notes:
    """What a console needs of its file."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                write("note", {"text": line.rstrip()})
        return len(text)

    def flush(self) -> None:
        """Each line is flushed as it is written."""

    def isatty(self) -> bool:
        return False

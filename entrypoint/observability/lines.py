"""The output of other programs, taken apart: bytes into lines. Pure.

Progress bars redraw their line with a carriage return and end it minutes later; a reader that waits for the line feed
sees nothing of them until then. vLLM writes the lines of one message with CR LF between them and LF at the end:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/logging_utils/formatter.py
"""

import re
from dataclasses import dataclass
from typing import Literal

# The longest line that is kept or passed on in one piece; Docker's own log has pieces of this size.
LONGEST_LINE = 16_384

Ending = Literal["\n", "\r\n", "\r", ""]
_ENDINGS = re.compile(rb"\r?\n|\r")
_NAMES: dict[bytes, Ending] = {b"\n": "\n", b"\r\n": "\r\n", b"\r": "\r"}


@dataclass(frozen=True)
class Line:
    """A line and what ended it: `\\r` means that it is drawn anew by the next one, `` that it was cut."""

    text: str
    ending: Ending = "\n"

    @property
    def redrawn(self) -> bool:
        """Whether the next line takes this one's place."""
        return self.ending == "\r"


class Splitter:
    """Takes bytes as they come and gives lines as soon as they are known. Holds at most one line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that `chunk` ends. A carriage return at its very end waits for what follows."""
        data, start = self._rest + chunk, 0
        found: list[Line] = []
        for match in _ENDINGS.finditer(data):
            if match[0] == b"\r" and match.end() == len(data):
                break
            found += _pieces(data[start : match.start()], _NAMES[match[0]])
            start = match.end()
        self._rest = data[start:]
        while len(self._rest) > LONGEST_LINE:
            piece, self._rest = self._rest[:LONGEST_LINE], self._rest[LONGEST_LINE:]
            found.append(Line(piece.decode(errors="replace"), ""))
        return found

    def finish(self) -> list[Line]:
        """What was written last without an end."""
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        return _pieces(rest, "") if rest else []


def _pieces(data: bytes, ending: Ending) -> list[Line]:
    """The line; in pieces where it is longer than the longest. Redrawing begins with a return, so nothing is before."""
    if ending == "\r" and not data:
        return []
    cut = [data[at : at + LONGEST_LINE].decode(errors="replace") for at in range(0, len(data), LONGEST_LINE)] or [""]
    return [Line(piece, "") for piece in cut[:-1]] + [Line(cut[-1], ending)]

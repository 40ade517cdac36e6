"""Text of other origin, made fit to be printed: no control characters, no half characters. Pure.

Names of files, processes and containers may hold anything, also sequences that a terminal obeys.
"""

import re

# C0 and C1 without tab and newline, and what turns the direction of writing: https://www.unicode.org/reports/tr9/
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with every character that a terminal would obey, and every lone surrogate, written as its escape.

    Colours, which programs write into their logs, are left out.
    """
    whole = _COLOURS.sub("", text).encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", whole)

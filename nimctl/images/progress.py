"""BuildKit's plain progress, line by line, and what it says about the whole build."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_STEP = re.compile(r"#(?P<number>\d+) (?P<rest>.*)")
_LOG = re.compile(r"\d+\.\d+ (?P<text>.*)")  # seconds into the step, then what it wrote


@dataclass(frozen=True)
class Step:
    """One line of BuildKit's plain progress: `state` is started, log, cached, done or error.

    `number` identifies the step; `text` is its name (started), its failure (error) or a line of its output (log).
    """

    number: int
    state: str
    text: str = ""


def parse_line(line: str) -> Step | None:
    """A line of BuildKit's plain progress as a `Step`; None for lines that belong to no step."""
    match = _STEP.fullmatch(line.rstrip())
    if not match:
        return None
    number, rest = int(match["number"]), match["rest"]
    if rest == "CACHED":
        return Step(number, "cached")
    if rest.startswith("DONE "):
        return Step(number, "done")
    if rest.startswith("ERROR: "):
        return Step(number, "error", rest.removeprefix("ERROR: "))
    if log := _LOG.fullmatch(rest):
        return Step(number, "log", log["text"])
    return Step(number, "started" if rest.startswith("[") else "log", rest)


def summary(steps: Sequence[Step]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe's steps (not BuildKit's own) that were cached and that ran, by name."""
    names = {step.number: step.text for step in steps if step.state == "started" and "[internal]" not in step.text}
    cached = {step.number for step in steps if step.state == "cached"}
    ran = {step.number for step in steps if step.state == "done"} - cached
    return (
        tuple(name for number, name in names.items() if number in cached),
        tuple(name for number, name in names.items() if number in ran),
    )

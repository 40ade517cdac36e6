"""A start drawn in time: one bar for each stage and each of its parts, where it began and how long it took. Pure."""

from nimctl.core.stages import StageState, StartupReport
from nimctl.render.words import shown

_NAME, _SECONDS = 13, 10  # columns
_NARROWEST = 10
_STYLES: dict[StageState, str] = {"pending": "dim", "running": "cyan", "done": "green", "failed": "red"}


def timeline(report: StartupReport, width: int = 80) -> list[tuple[str, str]]:
    """The lines, at most `width` columns wide, each with its style; none where no stage has taken any time.

    Stages follow each other; a restart shows those of the newest start.
    """
    rows: list[tuple[str, float, float, str]] = []  # name, when it began, seconds, style
    at = 0.0
    for stage in report.stages:
        if stage.seconds is None:
            continue
        style = _STYLES[stage.state]
        rows.append((stage.name, at, stage.seconds, style))
        rows += [(f"  {shown(step.name)}", at + step.began, step.seconds, "dim") for step in stage.steps]
        at += stage.seconds
    if at <= 0:
        return []
    columns = max(_NARROWEST, width - _NAME - _SECONDS - 2)
    lines = [(_line(name, seconds, _bar(began, seconds, at, columns)), style) for name, began, seconds, style in rows]
    return [*lines, (_line("in all", at, ""), "bold")]


def _line(name: str, seconds: float, bar: str) -> str:
    return f"{name[:_NAME]:<{_NAME}}{seconds:{_SECONDS - 2},.1f} s  {bar}".rstrip()


def _bar(began: float, seconds: float, whole: float, columns: int) -> str:
    """A bar of full blocks; what is shorter than half a block is a thin line, so that nothing vanishes."""
    first, last = (round(min(1.0, at / whole) * columns) for at in (began, began + seconds))
    start = min(columns - 1, first)
    length = last - start
    return " " * start + ("█" * length if length > 0 else "▏")

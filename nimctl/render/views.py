"""What is redrawn while something takes long: the stages of a start, and a transfer."""

import time
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from nimctl.core.plain import to_plain
from nimctl.core.stages import Figure, Stage, StartupReport
from nimctl.render.words import amounts, moved, shown, size

if TYPE_CHECKING:
    from nimctl.core.fetch import Progress
    from nimctl.render import Output

_LINE_SECONDS = 5.0  # between two lines of progress where lines cannot be redrawn
_STAGE_MARKS = {"pending": ("dim", "·"), "running": ("cyan", ">"), "done": ("green", "✓"), "failed": ("red", "✗")}


class StartupView:
    """Draws `StartupReport`s as they come."""

    def __init__(self, out: "Output", live: Live | None) -> None:
        self._out, self._live = out, live
        self._seen: dict[str, str] = {}
        self._printed = float("-inf")

    def update(self, report: StartupReport) -> None:
        """Show the newest report."""
        if self._live is not None:
            self._live.update(_stage_table(report))
            return
        for stage in report.stages:
            if stage.state != "pending":
                self._line(stage)
        if report.figures and "plan" not in self._seen:
            self._seen["plan"] = ""
            for figure in report.figures:
                if self._out.mode != "json":
                    self._out.text(_figure_line(figure), style="" if figure.right else "yellow")

    def _line(self, stage: Stage) -> None:
        """One line for a change of state or, of a stage that moves bytes, one every few seconds."""
        moves = stage.state == "running" and stage.bytes is not None
        known = f"{stage.state}/{stage.phase if moves else stage.detail if stage.state == 'running' else ''}"
        now = time.monotonic()
        if self._seen.get(stage.name) == known and not (moves and now - self._printed >= _LINE_SECONDS):
            return
        self._seen[stage.name], self._printed = known, now
        if self._out.json_lines:
            self._out.progress_line(_stage_json(stage))
        else:
            self._out.text(f"{stage.state:<8}{_stage_line(stage)}")

    def note(self, line: str) -> None:
        """A sentence beside the stages, such as a warning that nothing moves."""
        self._out.text(line, style="yellow")


class TransferView:
    """Draws the latest line of a long transfer with bytes, rate and time left."""

    def __init__(self, out: "Output", what: str, live: Live | None) -> None:
        self._out, self._what, self._live = out, what, live
        self._started = self._printed = time.monotonic()
        self._seen: tuple[str, str | None] | None = None

    def update(self, done: int | None, total: int | None, detail: str = "") -> None:
        """Bytes done of total (either may be unknown) and what is being done."""
        now = time.monotonic()
        line = self._what + (f"  {amounts(done, total, now - self._started)}" if done is not None else "")
        if self._live is not None:
            self._live.update(Text(shown(f"{line}  {detail}"), overflow="ellipsis", no_wrap=True))
        elif now - self._printed >= 5:
            self._printed = now
            self._out.text(f"{line}  {detail}".rstrip())

    def told(self, stage: str, done: int, total: int | None, detail: str) -> None:
        """The same for a program that is known by its last line, as lines of JSON where those are asked for."""
        if self._live is not None or not self._out.json_lines:
            self.update(done, total, detail)
        elif time.monotonic() - self._printed >= _LINE_SECONDS:
            self._printed = time.monotonic()
            told = {"stage": stage, "state": "running", "bytes": done, "total": total, "detail": detail}
            self._out.progress_line(told)

    def report(self, progress: "Progress", stage: str = "weights") -> None:
        """How far a download or a check is: bytes, rate and time left as it knows them itself."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(shown(f"{self._what}  {moved(progress)}"), overflow="ellipsis", no_wrap=True))
            return
        # what a source is waited for is told each time: nothing else moves meanwhile
        seen = (progress.phase, progress.detail if progress.phase == "resolving" else None)
        if now - self._printed >= _LINE_SECONDS or seen != self._seen:
            self._printed, self._seen = now, seen
            if self._out.json_lines:
                told = {"stage": stage, "state": "running", **to_plain(progress)}
                self._out.progress_line({name: value for name, value in told.items() if name != "files"})
            elif progress.phase != "done":
                self._out.text(f"{self._what}  {moved(progress)}")

    def line(self, text: str) -> None:
        """A line of output of the program at work."""
        if self._live is not None:
            self._live.update(Text(shown(f"{self._what}  {text}"), overflow="ellipsis", no_wrap=True))
        else:
            self._out.text(text)


def _stage_json(stage: Stage) -> dict[str, Any]:
    """A stage as a progress line: the same names as those of a download."""
    plain = to_plain(stage)
    told = {"stage": plain.pop("name"), **plain}
    return {name: value for name, value in told.items() if name != "files" and value is not None}


def _stage_table(report: StartupReport) -> Table:
    table = Table.grid(padding=(0, 1))
    for stage in report.stages:
        style, mark = _STAGE_MARKS[stage.state]
        dim = "dim" if stage.state == "pending" else ""
        table.add_row(Text(mark, style=style), Text(_stage_line(stage), style=dim))
    for figure in report.figures:
        mark, style = (" ", "") if figure.right else ("!", "yellow")
        table.add_row(Text(mark, style=style), Text(_figure_line(figure), style=style or "dim"))
    return table


def _figure_line(figure: Figure) -> str:
    """The plan against the engine, in one line."""
    as_bytes = figure.name == "weights"
    before, after = (size(n) if as_bytes else f"{n:,}" for n in (figure.planned, figure.found))
    wrong = "" if figure.right else "  the plan was wrong"
    return f"plan: {figure.name} {before}, engine: {after} ({figure.error:+.1%}){wrong}"


def _stage_line(stage: Stage) -> str:
    seconds = f"{stage.seconds:6.1f} s" if stage.seconds is not None else " " * 8
    running = stage.state == "running"
    if running and stage.phase:
        bytes_moved = moved(stage)
    else:
        bytes_moved = amounts(stage.bytes, stage.total, stage.seconds or 0) if stage.bytes else ""
    doing = shown(stage.detail or "") if stage.state != "done" else ""  # what it did last says nothing any more
    if doing and doing in bytes_moved:
        doing = ""
    detail = "  ".join(part for part in (bytes_moved, doing) if part)
    return f"{stage.name:<9}{seconds}  {detail}".rstrip()

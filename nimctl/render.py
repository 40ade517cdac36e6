"""Everything a person or a script sees. The only importer of rich.

Three modes: `human` (tables and progress), `quiet` (results and errors) and `json` (exactly one document on stdout).
People's text goes to stderr when stdout carries JSON, so that a pipe never sees both. Without a terminal progress
becomes plain lines, one a change; colour follows the terminal and `NO_COLOR`.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nimctl.core.errors import NimctlError
from nimctl.core.plain import to_plain
from nimctl.core.printable import printable
from nimctl.core.secret import redact
from nimctl.core.stages import PROGRESS_SCHEMA, Stage, StartupReport

if TYPE_CHECKING:
    from nimctl.core.fetch import Progress  # its room needs the network's library, which most verbs do not

Mode = Literal["human", "quiet", "json"]

_VERDICTS = {
    "pass": ("green", "ok"),
    "warn": ("yellow", "warn"),
    "fail": ("red", "fail"),
    "unknown": ("magenta", "?"),
    "skip": ("dim", "skip"),
}
_LINE_SECONDS = 5.0  # between two lines of progress where lines cannot be redrawn
_STAGE_MARKS = {"pending": ("dim", "·"), "running": ("cyan", ">"), "done": ("green", "✓"), "failed": ("red", "✗")}


@dataclass
class Output:
    """Where one verb writes. `verb` names the schema of its JSON document."""

    verb: str
    mode: Mode
    console: Console = field(repr=False)

    @classmethod
    def choose(cls, verb: str, *, as_json: bool = False, quiet: bool = False) -> "Output":
        """The output for the flags given: JSON beats quiet."""
        mode: Mode = "json" if as_json else "quiet" if quiet else "human"
        stream = sys.stdout if mode == "human" else sys.stderr
        width = None if stream.isatty() else 100
        return cls(verb, mode, Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty()))

    @property
    def live(self) -> bool:
        """True where lines may be redrawn."""
        return self.mode != "quiet" and self.console.is_terminal

    def text(self, line: str, style: str = "") -> None:
        """A line for people; secrets that other programs printed are masked."""
        if self.mode != "quiet":
            self.console.print(Text(_shown(line), style=style))

    def result(self, line: str) -> None:
        """A line that is the point of the command: shown in quiet mode too, on stdout; never in JSON mode."""
        if self.mode != "json":
            sys.stdout.write(_shown(line) + "\n")
            sys.stdout.flush()

    def document(self, content: dict[str, Any]) -> None:
        """The one JSON document of this verb, in JSON mode only."""
        if self.mode == "json":
            document = {"schema": f"nimctl.{self.verb}/1", **content}
            text = redact(json.dumps(document, indent=2, ensure_ascii=False))
            sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")  # half characters as escapes
            sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that fits the terminal (80 columns: the last column wraps)."""
        if self.mode == "quiet":
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for number, name in enumerate(columns):
            longest = max((len(row[number]) for row in rows), default=0)
            table.add_column(name, overflow="fold", no_wrap=number < len(columns) - 1 and longest <= 40)
        for row in rows:
            table.add_row(*(escape(_shown(cell)) for cell in row))
        self.console.print(table)

    def error(self, error: NimctlError, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """One failure: id, what happened, cause, fix, and the lines that prove it; `more` goes into the document."""
        if self.mode == "json":
            self.document({"ok": False, "error": error.to_json(), **more})
        self.error_panel(error)

    def error_panel(self, error: NimctlError) -> None:
        """The same for people, on stderr; a document that was written tells of it already."""
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble((f"error[{error.id}] ", "bold red"), _shown(error.message)))
        for line in error.evidence:
            console.print(Text(f"  | {_shown(line)}", style="dim"))
        console.print(Text.assemble(("  cause: ", "bold"), _shown(error.cause)))
        console.print(Text.assemble(("  fix:   ", "bold"), _shown(error.fix)))

    def findings(self, findings: Sequence[Any]) -> None:
        """Doctor's findings: a line each, with cause and fix below those that are not well."""
        for f in findings:
            style, mark = ("cyan", "note") if (f.verdict, f.severity) == ("warn", "info") else _VERDICTS[f.verdict]
            self._indented(6, Text(f"{mark:<6}", style), Text.assemble(_shown(f.title), (f"  [{f.id}]", "dim")))
            if f.verdict in ("fail", "warn", "unknown"):
                if f.cause:
                    self._indented(8, Text(""), Text(_shown(f.cause), "dim"))
                if f.fix:
                    self._indented(8, Text(""), Text.assemble(("fix: ", "bold"), _shown(f.fix)))

    def groups(self, verdict: str, groups: Mapping[str, Sequence[str]]) -> None:
        """Names by group, a line each group: `ok    host      os, arch, memory`."""
        style, mark = _VERDICTS[verdict]
        width = max((len(name) for name in groups), default=0) + 2
        for name, members in groups.items():
            head = Text.assemble((f"{mark:<6}", style), f"{name:<{width}}")
            self._indented(6 + width, head, Text(", ".join(members), "dim"))

    def _indented(self, width: int, head: Text, body: Text) -> None:
        """`head`, then `body` beside it: wrapped below itself on a terminal, one long line in a pipe."""
        if not self.console.is_terminal:
            head.align("left", width)
            self.console.print(head + body)
            return
        grid = Table.grid()
        grid.add_column(width=width)
        grid.add_column(overflow="fold")
        grid.add_row(head, body)
        self.console.print(grid)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Says what takes longer than a moment: a spinner on a terminal, one line elsewhere."""
        if self.live:
            with self.console.status(escape(what)):
                yield
        else:
            self.text(what)
            yield

    @contextmanager
    def startup(self) -> Iterator["StartupView"]:
        """The stages of a start, redrawn on a terminal, as one line a change elsewhere."""
        if self.live:
            with Live(console=self.console, refresh_per_second=8, transient=False) as live:
                yield StartupView(self, live)
        else:
            yield StartupView(self, None)

    def progress_line(self, progress: Mapping[str, Any]) -> None:
        """One line of JSON on stderr, in JSON mode only: how far a long step is, for CI."""
        if self.mode == "json":
            line = json.dumps({"schema": PROGRESS_SCHEMA, "event": "progress", **progress}, ensure_ascii=False)
            sys.stderr.write(_shown(line) + "\n")
            sys.stderr.flush()

    @contextmanager
    def transfer(self, what: str) -> Iterator["TransferView"]:
        """Progress of a pull or build, redrawn on a terminal, as a line every few seconds elsewhere."""
        if self.live:
            with Live(console=self.console, refresh_per_second=8, transient=True) as live:
                yield TransferView(self, what, live)
        else:
            self.text(what)
            yield TransferView(self, what, None)


class StartupView:
    """Draws `StartupReport`s as they come."""

    def __init__(self, out: Output, live: Live | None) -> None:
        self._out, self._live = out, live
        self._seen: dict[str, str] = {}
        self._printed = float("-inf")

    def update(self, report: StartupReport) -> None:
        """Show the newest report."""
        if self._live is not None:
            self._live.update(_stage_table(report.stages))
            return
        for stage in report.stages:
            if stage.state != "pending":
                self._line(stage)

    def _line(self, stage: Stage) -> None:
        """One line for a change of state or, of a stage that moves bytes, one every few seconds."""
        moves = stage.state == "running" and stage.bytes is not None
        known = f"{stage.state}/{stage.phase if moves else stage.detail if stage.state == 'running' else ''}"
        now = time.monotonic()
        if self._seen.get(stage.name) == known and not (moves and now - self._printed >= _LINE_SECONDS):
            return
        self._seen[stage.name], self._printed = known, now
        if self._out.mode == "json":
            self._out.progress_line(_stage_json(stage))
        else:
            self._out.text(f"{stage.state:<8}{_stage_line(stage)}")

    def note(self, line: str) -> None:
        """A sentence beside the stages, such as a warning that nothing moves."""
        self._out.text(line, style="yellow")


class TransferView:
    """Draws the latest line of a long transfer with bytes, rate and time left."""

    def __init__(self, out: Output, what: str, live: Live | None) -> None:
        self._out, self._what, self._live = out, what, live
        self._started = self._printed = time.monotonic()
        self._seen: tuple[str, str | None] | None = None

    def update(self, done: int | None, total: int | None, detail: str = "") -> None:
        """Bytes done of total (either may be unknown) and what is being done."""
        now = time.monotonic()
        line = self._what + (f"  {amounts(done, total, now - self._started)}" if done is not None else "")
        if self._live is not None:
            self._live.update(Text(_shown(f"{line}  {detail}"), overflow="ellipsis", no_wrap=True))
        elif now - self._printed >= 5:
            self._printed = now
            self._out.text(f"{line}  {detail}".rstrip())

    def report(self, progress: "Progress") -> None:
        """How far a download or a check is: bytes, rate and time left as it knows them itself."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(_shown(f"{self._what}  {moved(progress)}"), overflow="ellipsis", no_wrap=True))
            return
        # what a source is waited for is told each time: nothing else moves meanwhile
        seen = (progress.phase, progress.detail if progress.phase == "resolving" else None)
        if now - self._printed >= _LINE_SECONDS or seen != self._seen:
            self._printed, self._seen = now, seen
            if self._out.mode == "json":
                told = {"stage": "weights", "state": "running", **to_plain(progress)}
                self._out.progress_line({name: value for name, value in told.items() if name != "files"})
            elif progress.phase != "done":
                self._out.text(f"{self._what}  {moved(progress)}")

    def line(self, text: str) -> None:
        """A line of output of the program at work."""
        if self._live is not None:
            self._live.update(Text(_shown(f"{self._what}  {text}"), overflow="ellipsis", no_wrap=True))
        else:
            self._out.text(text)


def _shown(text: str) -> str:
    """Text of other origin as people may see it: no keys, nothing that a terminal obeys."""
    return printable(redact(text))


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as disks and downloads are sold: 595.1 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def ago(seconds: float | None) -> str:
    """An age for people: `3 min`, `5 h`, `12 d`; `-` where it is not known."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moved(progress: "Progress | Stage") -> str:
    """`fetching 12.0 GB of 595.1 GB, 1.2 GB/s, 8 min left, 16 connections, 2 retries`, as far as it is known."""
    parts = [size(progress.bytes or 0) + (f" of {size(progress.total)}" if progress.total else "")]
    if progress.rate:
        parts.append(f"{size(progress.rate)}/s")
    if progress.eta is not None:
        parts.append(left(progress.eta))
    if progress.connections:
        parts.append(_count(progress.connections, "connection"))
    if progress.retries:
        parts.append(_count(progress.retries, "retry" if progress.retries == 1 else "retrie"))
    if progress.phase in ("resolving", "waiting"):
        return f"{progress.phase}: {progress.detail}" if progress.detail else str(progress.phase)
    return f"{progress.phase or ''} {', '.join(parts)}".strip()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def left(seconds: float) -> str:
    """Time left for people."""
    return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"


def amounts(done: int | None, total: int | None, seconds: float) -> str:
    """`12.0 GB of 595.1 GB, 1.2 GB/s, 8 min left`, as far as it is known."""
    if done is None:
        return ""
    parts = [size(done) + (f" of {size(total)}" if total else "")]
    if seconds > 1 and done:
        rate = done / seconds
        parts.append(f"{size(rate)}/s")
        if total and total > done:
            parts.append(left((total - done) / rate))
    return ", ".join(parts)


def _stage_json(stage: Stage) -> dict[str, Any]:
    """A stage as a progress line: the same names as those of a download."""
    plain = to_plain(stage)
    told = {"stage": plain.pop("name"), **plain}
    return {name: value for name, value in told.items() if name != "files" and value is not None}


def _stage_table(stages: Sequence[Stage]) -> Table:
    table = Table.grid(padding=(0, 1))
    for stage in stages:
        style, mark = _STAGE_MARKS[stage.state]
        dim = "dim" if stage.state == "pending" else ""
        table.add_row(Text(mark, style=style), Text(_stage_line(stage), style=dim))
    return table


def _stage_line(stage: Stage) -> str:
    seconds = f"{stage.seconds:6.1f} s" if stage.seconds is not None else " " * 8
    running = stage.state == "running"
    if running and stage.phase:
        bytes_moved = moved(stage)
    else:
        bytes_moved = amounts(stage.bytes, stage.total, stage.seconds or 0) if stage.bytes else ""
    doing = _shown(stage.detail or "") if stage.state != "done" else ""  # what it did last says nothing any more
    if doing and doing in bytes_moved:
        doing = ""
    detail = "  ".join(part for part in (bytes_moved, doing) if part)
    return f"{stage.name:<9}{seconds}  {detail}".rstrip()

"""Everything a person or a script sees. The only importer of rich.

Three modes: `human` (tables and progress), `quiet` (results and errors) and `json` (exactly one document on stdout).
People's text goes to stderr when stdout carries JSON, so that a pipe never sees both. Progress is redrawn on a
terminal, plain lines without one, and JSON lines on stderr in JSON mode, unless `progress` says which of the three;
with `json` each line on stderr is one of JSON. Colour follows the terminal and `NO_COLOR`.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nimctl.core.errors import NimctlError
from nimctl.core.secret import redact
from nimctl.core.stages import StartupReport
from nimctl.render import json_lines
from nimctl.render.pull import PullView
from nimctl.render.timeline import timeline
from nimctl.render.views import StartupView, TransferView
from nimctl.render.words import ago, amounts, left, moved, shown, size

__all__ = ["Mode", "Output", "StartupView", "TransferView", "ago", "amounts", "left", "moved", "size"]

_WIDTH = 80  # of what is drawn

Mode = Literal["human", "quiet", "json"]
ProgressForm = Literal["auto", "tty", "plain", "json"]

_VERDICTS = {
    "pass": ("green", "ok"),
    "warn": ("yellow", "warn"),
    "fail": ("red", "fail"),
    "unknown": ("magenta", "?"),
    "skip": ("dim", "skip"),
}


@dataclass
class Output:
    """Where one verb writes. `verb` names the schema of its JSON document."""

    verb: str
    mode: Mode
    console: Console = field(repr=False)
    progress: ProgressForm = "auto"

    @classmethod
    def choose(
        cls, verb: str, *, as_json: bool = False, quiet: bool = False, progress: ProgressForm = "auto"
    ) -> "Output":
        """The output for the flags given: JSON beats quiet."""
        mode: Mode = "json" if as_json else "quiet" if quiet else "human"
        stream = sys.stdout if mode == "human" else json_lines.notes() if progress == "json" else sys.stderr
        width = None if stream.isatty() else 100
        return cls(
            verb, mode, Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty()), progress
        )

    @property
    def live(self) -> bool:
        """True where lines may be redrawn."""
        return self.mode != "quiet" and self.progress in ("auto", "tty") and self.console.is_terminal

    @property
    def json_lines(self) -> bool:
        """True where progress is told as lines of JSON."""
        return self.progress == "json" or (self.progress == "auto" and self.mode == "json" and not self.live)

    def text(self, line: str, style: str = "") -> None:
        """A line for people; secrets that other programs printed are masked."""
        if self.mode != "quiet":
            self.console.print(Text(shown(line), style=style))

    def link(self, address: str) -> None:
        """A source, indented and never cut, so that a terminal can open it."""
        if self.mode == "human":
            self.console.print(Text(f"  {shown(address)}", style="dim"), soft_wrap=True)

    def result(self, line: str) -> None:
        """A line that is the point of the command: shown in quiet mode too, on stdout; never in JSON mode."""
        if self.mode != "json":
            sys.stdout.write(shown(line) + "\n")
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
            table.add_row(*(escape(shown(cell)) for cell in row))
        self.console.print(table)

    def heading(self, line: str) -> None:
        """A line above what belongs together, with room before it."""
        if self.mode == "human":
            self.console.print(Text(f"\n{shown(line)}", style="bold"))

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """What is the case, a line each: its name, then the words, wrapped below themselves on a terminal."""
        width = min(max((len(name) for name, _ in pairs), default=0) + 2, 44)
        for name, words in pairs if self.mode == "human" else ():
            apart = " " * max(0, 2 - max(0, width - len(name)))  # a long name is not cut in a pipe
            head = shown(name) + ("" if self.console.is_terminal else apart)
            self._indented(
                max(width, len(head)) if not self.console.is_terminal else width, Text(head), Text(shown(words))
            )

    def figures(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """Numbers with their names, what they rest on and a note, the numbers one below the other."""
        numbers = max((len(row[0]) for row in rows), default=0)
        names = max((len(row[1]) for row in rows), default=0) + 2
        bases = max((len(row[2]) for row in rows), default=0) + 2
        for number, name, basis, note in rows if self.mode == "human" else ():
            head = Text.assemble(f"  {number:>{numbers}}  {shown(name):<{names}}", (f"{basis:<{bases}}", "dim"))
            self._indented(numbers + names + bases + 4, head, Text(shown(note), "dim"))

    def lists(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Two short words and a sentence each, wrapped below itself on a terminal."""
        first = max((len(row[0]) for row in rows), default=0) + 2
        second = max((len(row[1]) for row in rows), default=0) + 2
        for word, name, words in rows if self.mode == "human" else ():
            head = Text.assemble(f"{shown(word):<{first}}", f"{shown(name):<{second}}")
            self._indented(first + second, head, Text(shown(words), "dim"))

    def error(self, error: NimctlError, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """One failure: id, what happened, cause, fix, and the lines that prove it; `more` goes into the document."""
        if self.mode == "json":
            self.document({"ok": False, "error": error.to_json(), **more})
        self.error_panel(error)

    def error_panel(self, error: NimctlError) -> None:
        """The same for people, on stderr; a document that was written tells of it already."""
        if self.progress == "json":
            json_lines.write("error", error.to_json())
            return
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble((f"error[{error.id}] ", "bold red"), shown(error.message)))
        for line in error.evidence:
            console.print(Text(f"  | {shown(line)}", style="dim"))
        console.print(Text.assemble(("  cause: ", "bold"), shown(error.cause)))
        console.print(Text.assemble(("  fix:   ", "bold"), shown(error.fix)))

    def findings(self, findings: Sequence[Any]) -> None:
        """Doctor's findings: a line each, with cause and fix below those that are not well."""
        for f in findings:
            style, mark = ("cyan", "note") if (f.verdict, f.severity) == ("warn", "info") else _VERDICTS[f.verdict]
            self._indented(6, Text(f"{mark:<6}", style), Text.assemble(shown(f.title), (f"  [{f.id}]", "dim")))
            if f.verdict in ("fail", "warn", "unknown"):
                if f.cause:
                    self._indented(8, Text(""), Text(shown(f.cause), "dim"))
                if f.fix:
                    self._indented(8, Text(""), Text.assemble(("fix: ", "bold"), shown(f.fix)))

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
    def startup(self) -> Iterator[StartupView]:
        """The stages of a start, redrawn on a terminal, as one line a change elsewhere."""
        if self.live:
            with Live(console=self.console, refresh_per_second=8, transient=False) as live:
                yield StartupView(self, live)
        else:
            yield StartupView(self, None)

    def timeline(self, report: StartupReport) -> None:
        """The stages and their parts as bars, for people alone."""
        if self.mode == "human":
            for line, style in timeline(report, min(self.console.width, _WIDTH)):
                self.console.print(Text(line, style=style), soft_wrap=True)

    def progress_line(self, progress: Mapping[str, Any]) -> None:
        """One line of JSON on stderr, in JSON mode or where it was asked for: how far a long step is, for CI."""
        if self.json_lines:
            json_lines.write("progress", progress)

    @contextmanager
    def transfer(self, what: str) -> Iterator[TransferView]:
        """Progress of a pull or build, redrawn on a terminal, as a line every few seconds elsewhere."""
        if self.live:
            with Live(console=self.console, refresh_per_second=8, transient=True) as live:
                yield TransferView(self, what, live)
        else:
            self.text(what)
            yield TransferView(self, what, None)

    @contextmanager
    def pull(self, what: str) -> Iterator[PullView]:
        """Progress of a pull by layers, redrawn on a terminal, as lines elsewhere."""
        self.text(what)
        if self.live:
            with Live(console=self.console, refresh_per_second=8, transient=True) as live:
                yield PullView(self, live)
        else:
            yield PullView(self, None)

"""What people and scripts see: one JSON document, plain lines in a pipe, secrets masked, 80 columns."""

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import FileProgress, Progress
from nimctl.core.stages import Stage, StartupReport, Step
from nimctl.doctor.model import failed, passed
from nimctl.render import Output, ago, amounts, moved, size
from nimctl.render.timeline import timeline

KEY = "nvapi-abcdefgh12345678"


def output(mode: str, *, terminal: bool = False) -> tuple[Output, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=terminal, highlight=False, soft_wrap=not terminal)
    return Output("run", mode, console), screen  # type: ignore[arg-type]


def test_json_mode_prints_exactly_one_document_and_keeps_people_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output.choose("run", as_json=True)
    out.text("hello")
    out.result("a line")
    out.document({"ok": True, "key": KEY})
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"schema": "nimctl.run/1", "ok": True, "key": "***"}
    assert "hello" in seen.err


def test_human_mode_prints_no_document_and_quiet_mode_only_results(capsys: pytest.CaptureFixture[str]) -> None:
    Output.choose("run").document({"ok": True})
    quiet = Output.choose("run", quiet=True)
    quiet.text("hello")
    quiet.result("the point")
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("the point\n", "")


def test_an_error_shows_id_cause_fix_and_evidence_with_keys_masked(capsys: pytest.CaptureFixture[str]) -> None:
    error = NimctlError("engine-died", f"it died {KEY}", cause=f"c {KEY}", fix="f", evidence=[f"line {KEY}"])
    Output.choose("run", as_json=True).error(error)
    seen = capsys.readouterr()
    assert json.loads(seen.out)["error"]["id"] == "engine-died"
    for part in ("error[engine-died]", "cause:", "fix:", "line ***"):
        assert part in seen.err
    assert KEY not in seen.out + seen.err


def test_markup_of_others_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output.choose("ps")
    out.text("[red]not red[/red] [/nonsense]")
    out.table(("A", "B"), [("[bold]x", "[/y]")])
    assert "[red]not red[/red] [/nonsense]" in capsys.readouterr().out


def test_findings_wrap_below_themselves_on_a_terminal_and_never_in_a_pipe() -> None:
    long = "word " * 40
    findings = [passed("os", long), failed("driver", "driver-too-old", "old", cause=long, fix=long)]
    out, screen = output("human", terminal=True)
    out.findings(findings)
    assert all(len(line.rstrip()) <= 100 for line in screen.getvalue().splitlines())  # 80 and the colour codes
    out, pipe = output("human")
    out.findings(findings)
    assert len(pipe.getvalue().splitlines()) == 4


def test_in_a_pipe_a_stage_is_a_line_only_when_it_changes() -> None:
    out, screen = output("human")
    report = StartupReport("starting", (Stage("weights", "running", 1.0, 5, 10, detail="a"),), "0.1.0")
    with out.startup() as view:
        for _ in range(5):
            view.update(report)
        view.update(StartupReport("starting", (Stage("weights", "done", 2.0, 10, 10),), "0.1.0"))
    lines = screen.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].startswith("running weights") and lines[1].startswith("done")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (103_003_888, "103.0 MB"), (595_148_192_736, "595.1 GB")]
)
def test_sizes_are_in_powers_of_1000(count: int, text: str) -> None:
    assert size(count) == text


def test_amounts_tell_rate_and_time_left() -> None:
    assert amounts(50_000_000_000, 100_000_000_000, 100) == "50.0 GB of 100.0 GB, 500.0 MB/s, 2 min left"
    assert amounts(None, 5, 1) == "" and amounts(5, None, 0) == "5 B"


HALFWAY = Progress(
    120_000_000, 600_000_000, "model.safetensors", rate=1e6, eta=480.0, retries=2, connections=16,
    files=(FileProgress("model.safetensors", 120_000_000, 600_000_000, "fetching"),),
)  # fmt: skip


def test_a_download_says_what_it_knows_itself() -> None:
    assert moved(HALFWAY) == "fetching 120.0 MB of 600.0 MB, 1.0 MB/s, 8 min left, 16 connections, 2 retries"
    waiting = Progress(0, 5, phase="waiting", detail="another process is fetching")
    assert moved(waiting) == "waiting: another process is fetching"


def test_in_a_pipe_a_download_is_a_line_for_each_phase_and_not_for_each_report() -> None:
    out, screen = output("human")
    with out.transfer("weights hf://a/b") as view:
        for _ in range(3):
            view.report(HALFWAY)
        view.report(Progress(600_000_000, 600_000_000, phase="verifying"))
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3 and "120.0 MB of 600.0 MB" in lines[1] and "verifying" in lines[2]


def test_in_json_mode_progress_is_lines_of_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output.choose("pull", as_json=True)
    with out.transfer("weights hf://a/b") as view:
        view.report(HALFWAY)
    with out.startup() as startup:
        stage = Stage("weights", "running", bytes=1, total=2, rate=5.0, phase="fetching")
        startup.update(StartupReport("starting", (Stage("front", "done"), stage, Stage("engine")), version="1"))
    seen = capsys.readouterr()
    lines = [json.loads(line) for line in seen.err.splitlines() if line.startswith("{")]
    assert seen.out == "" and {line["schema"] for line in lines} == {"nimctl.progress/1"}
    assert (lines[0]["bytes"], lines[0]["connections"], lines[0]["phase"]) == (120_000_000, 16, "fetching")
    assert "files" not in lines[0]
    assert [(line["stage"], line["state"]) for line in lines[1:]] == [("front", "done"), ("weights", "running")]
    assert lines[2]["rate"] == 5.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "-"), (3, "3 s"), (200, "3 min"), (9000, "2 h"), (864000, "10 d")]
)
def test_ages(seconds: float | None, words: str) -> None:
    assert ago(seconds) == words


SLOW = StartupReport(
    "ready",
    (
        Stage("settings", "done", 0.02),
        Stage("weights", "done", 1200.0, steps=(Step("resolving", 0.0, 2.0), Step("fetching", 2.0, 1198.0))),
        Stage(
            "engine", "done", 400.0, steps=(Step("imports", 0.0, 100.0), Step("a [b]very long name[/b]", 100, 300.0))
        ),
        Stage("warmup", "failed", 100.0, steps=(Step("text", 0.0, 40.0), Step("image", 0.0, 100.0))),
        Stage("ready"),
    ),
    "1.0",
)


def test_a_start_is_drawn_in_time_within_80_columns() -> None:
    out, screen = output("human", terminal=True)
    out.timeline(SLOW)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in screen.getvalue().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert lines == [
        "settings          0.0 s  ▏",
        "weights       1,200.0 s  " + "█" * 39,
        "  resolving       2.0 s  ▏",
        "  fetching    1,198.0 s  " + "█" * 39,
        "engine          400.0 s  " + " " * 39 + "█" * 13,
        "  imports       100.0 s  " + " " * 39 + "█" * 3,
        "  a [b]very l   300.0 s  " + " " * 42 + "█" * 10,
        "warmup          100.0 s  " + " " * 52 + "█" * 3,
        "  text           40.0 s  " + " " * 52 + "█",
        "  image         100.0 s  " + " " * 52 + "█" * 3,
        "in all        1,700.0 s",
    ]


def test_no_timeline_without_time_and_none_for_machines() -> None:
    for mode, report in (
        ("human", StartupReport("starting", (Stage("settings"),), "1.0")),
        ("json", SLOW),
        ("quiet", SLOW),
    ):
        out, screen = output(mode)
        out.timeline(report)
        assert screen.getvalue() == ""


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=8), st.integers(20, 200))
def test_every_part_has_a_bar_and_no_line_is_too_wide(parts: list[tuple[float, float, float]], width: int) -> None:
    stages = tuple(Stage("engine", "done", a, steps=(Step("s", b, c),)) for a, b, c in parts)
    lines = timeline(StartupReport("ready", stages, "1.0"), max(40, width))
    assert all(len(line) <= max(40, width) + 5 for line, _ in lines)
    assert all("█" in line or "▏" in line for line, _ in lines[:-1])

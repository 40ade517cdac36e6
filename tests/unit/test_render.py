"""What people and scripts see: one JSON document, plain lines in a pipe, secrets masked, 80 columns."""

import io
import json

import pytest
from rich.console import Console

from nimctl.core.errors import NimctlError
from nimctl.core.stages import Stage, StartupReport
from nimctl.doctor.model import failed, passed
from nimctl.render import Output, amounts, size

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

"""A pull as it is shown: a line that fits, lines of JSON with a known total, and a rate that shows a stall."""

import io
import json

import pytest
from rich.console import Console

from nimctl.core.errors import NimctlError
from nimctl.core.pull_progress import Layer, PullProgress
from nimctl.render import Output
from nimctl.render.pull import PullView, Rate, _picture, summary

GB = 10**9


def progress(*layers: Layer, attempt: int = 1) -> PullProgress:
    return PullProgress({f"{number:012}": layer for number, layer in enumerate(layers)}, attempt=attempt)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds():
    clock = Clock()
    rate = Rate(clock)
    assert rate.add(0) is None
    for second in range(1, 31):
        clock.now = second
        found = rate.add(second * 100)
    assert found == pytest.approx(100)
    for second in range(31, 51):
        clock.now = second
        found = rate.add(3000)
    assert found == 0, "a stall shows"
    assert rate.add(10) is None, "a further try begins below"


def test_a_line_has_bytes_rate_and_time_left():
    now = progress(Layer(GB, state="done"), Layer(3 * GB, GB, "fetching"))
    assert summary(now, 1e8) == "fetching   2.0 GB of 4.0 GB, 100.0 MB/s, 20 s left, 1 of 2 layers unpacked"
    assert "left" not in summary(now, 0.0) and "left" not in summary(now, None)
    assert summary(progress(Layer(GB, GB, "unpacking")), 5.0) == "unpacking  1.0 GB of 1.0 GB, 0 of 1 layer unpacked"


@pytest.mark.parametrize("width", [80, 60])
def test_the_picture_fits_a_terminal(width):
    busy = progress(*[Layer(123_456_789_012, 98_765_432_101, "fetching") for _ in range(9)])
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(_picture(busy, 1.5e9))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "and 3 more layers" in stream.getvalue()


@pytest.mark.parametrize(
    ("choice", "json_lines"),
    [
        ({"as_json": True}, True),
        ({"progress": "json"}, True),
        ({}, False),
        ({"as_json": True, "progress": "plain"}, False),
    ],
)
def test_who_gets_lines_of_json(capsys, choice, json_lines):
    clock = Clock()
    view = PullView(Output.choose("pull", **choice), None, clock)
    view.update(progress(Layer(100, 10, "fetching")))
    clock.now = 2.0
    view.update(progress(Layer(100, 60, "fetching")))
    clock.now = 6.0
    view.update(progress(Layer(100, 90, "fetching")))
    view.update(progress(Layer(100, state="done")))
    said = capsys.readouterr()
    assert said.out == "" or not choice.get("as_json")
    if not json_lines:
        assert '"schema"' not in said.err + said.out and "90 B of 100 B" in said.err + said.out
        return
    told = [json.loads(line) for line in said.err.splitlines()]
    assert [(line["bytes"], line["total"], line["state"]) for line in told] == [
        (10, 100, "running"),
        (90, 100, "running"),
        (100, 100, "done"),
    ]
    assert told[1]["rate"] == 13 and told[1]["eta"] == 0.8


def test_a_stall_is_a_line_every_five_seconds_with_no_rate(capsys):
    clock = Clock()
    view = PullView(Output.choose("pull", progress="json"), None, clock)
    for second in range(31):
        clock.now = second
        view.update(progress(Layer(100, min(second * 10, 50), "fetching")))
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["bytes"] for line in told] == [0, 10, 50, 50, 50, 50, 50]  # the first byte is a change of phase
    assert told[-1]["rate"] == 0 and told[-1]["eta"] is None


@pytest.mark.parametrize("choice", [{"as_json": True}, {"quiet": True}, {}])
def test_each_line_on_stderr_is_json_where_that_was_asked_for(capsys, choice):
    out = Output.choose("pull", progress="json", **choice)
    out.text("two\nlines", style="yellow")
    out.table(("a", "b"), [("1", "2")])
    PullView(out, None).note("trying again")
    PullView(out, None).update(progress(Layer(100, 10, "fetching")))
    out.error(NimctlError("disk-full", "no", cause="full", fix="Free it.", evidence=["line"]))
    said = capsys.readouterr()
    told = [json.loads(line) for line in said.err.splitlines()]
    assert {line["schema"] for line in told} == {"nimctl.progress/1"}
    notes = [line["text"] for line in told if line["event"] == "note"]
    assert notes == (["two", "lines", "a  b", "1  2", "trying again"] if choice.get("as_json") else [])
    assert [line["event"] for line in told][-2:] == ["progress", "error"] and told[-1]["id"] == "disk-full"
    assert not choice.get("as_json") or json.loads(said.out)["error"]["id"] == "disk-full"

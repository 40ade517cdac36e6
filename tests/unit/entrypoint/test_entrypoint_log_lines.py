"""Lines of other programs become records of one shape, and come out as text or as JSON."""

import io
import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.observability import foreign
from entrypoint.observability.journal import Journal
from entrypoint.observability.lines import LONGEST_LINE, Line, Splitter
from entrypoint.observability.reader import SETTLE_SECONDS, Reader
from entrypoint.processes import child
from entrypoint.settings import read
from nimctl.core.logshape import Record, as_json, as_text, said
from nimctl.core.secret import Secret

NOW = 1772539210.0791
MANY_DIGITS = "9" * 5000
ROOT = Path(__file__).parents[3]


def lines_of(*chunks: bytes) -> list[Line]:
    splitter = Splitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()


def test_bytes_become_lines_with_what_ended_them():
    assert lines_of(b"one\ntwo\r\nthr", b"ee\r", b"\nbar 1\rbar 2\r", b"bar 3\n", b"rest") == [
        Line("one"),
        Line("two", "\r\n"),
        Line("three", "\r\n"),
        Line("bar 1", "\r"),
        Line("bar 2", "\r"),
        Line("bar 3"),
        Line("rest", ""),
    ]


def test_a_line_without_end_comes_in_pieces_and_is_never_held_whole():
    found = lines_of(*[b"x" * 1000] * 40)
    assert [len(line.text) for line in found] == [LONGEST_LINE, LONGEST_LINE, 40_000 - 2 * LONGEST_LINE]
    assert [len(line.text) for line in lines_of(b"y" * 40_000 + b"\n")] == [16_384, 16_384, 7_232]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_where_the_bytes_are_cut_changes_nothing(data: bytes, cuts: list[int]):
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert lines_of(*[data[a:b] for a, b in pairwise(at)]) == lines_of(data)


def heard(text: str, **known: object) -> dict[str, object]:
    """What a record should be; what is not named is not known."""
    unknown = {"level": "INFO", "file_name": None, "line_number": None, "process": None, "pid": None}
    return {**unknown, "message": text, **known}


CLOSED = "*3 upstream closed, client: 1.2.3.4, server: _, request: "
TOOK = "Loading weights took 0.13 seconds"
RECEIVED = "Received request chatcmpl-1a2b3c: params: x"
LEFT = "Warning: destroy_process_group() was not called"
REFUSED = "vllm serve: error: unrecognized arguments: --x"
SEGFAULT = "Fatal Python error: Segmentation fault"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f"(Worker_TP3 pid=25322) INFO 11-22 12:39:36 [default_loader.py:501] {TOOK}",
            heard(TOOK, file_name="default_loader.py", line_number=501, process="Worker_TP3", pid=25322),
        ),
        ("WARNING 11-22 12:39:36 [v1/c.py:7] hm", heard("hm", level="WARNING", file_name="v1/c.py", line_number=7)),
        (
            f"(APIServer pid=7) INFO 11-22 12:39:36 [request_logger.py:39] {RECEIVED}",
            heard(RECEIVED, file_name="request_logger.py", line_number=39, process="APIServer", pid=7),
        ),
        ("INFO:     Application startup complete.", heard("Application startup complete.", process="uvicorn")),
        ("\x1b[32mINFO\x1b[0m:     Started", heard("Started", process="uvicorn")),
        (
            'INFO:      - "GET /health HTTP/1.1" 200 OK',
            heard('- "GET /health HTTP/1.1" 200 OK', level="DEBUG", process="uvicorn"),
        ),
        (
            'INFO:     1.2.3.4:5 - "POST /v1/completions?key=abc HTTP/1.1" 200 OK',
            heard('1.2.3.4:5 - "POST /v1/completions HTTP/1.1" 200 OK', process="uvicorn"),
        ),
        (
            f'2026/11/22 15:54:25 [error] 12#12: {CLOSED}"POST /a?k=v HTTP/1.1", upstream: "http://unix:/e.sock:/a?k=v"',
            heard(
                f'{CLOSED}"POST /a HTTP/1.1", upstream: "http://unix:/e.sock:/a"',
                level="ERROR",
                process="nginx",
                pid=12,
            ),
        ),
        ("nginx: [emerg] bind() failed", heard("bind() failed", level="CRITICAL", process="nginx")),
        (
            f"[rank0]:[W1122 15:54:25.123456 ProcessGroup.cpp:1250] {LEFT}",
            heard(LEFT, level="WARNING", file_name="ProcessGroup.cpp", line_number=1250),
        ),
        (
            "/opt/x/resource_tracker.py:254: UserWarning: leaked",
            heard("UserWarning: leaked", level="WARNING", file_name="resource_tracker.py", line_number=254),
        ),
        ("2026-01-01 10:00:00,123 - INFO - autotuner.py:256 - tuning", heard("autotuner.py:256 - tuning")),
        (
            '{"levelname": "ERROR", "message": "m", "processName": "P", "process": 3}',
            heard("m", level="ERROR", process="P", pid=3),
        ),
        ("RuntimeError: the GPU is on fire", heard("RuntimeError: the GPU is on fire", level="ERROR")),
        (REFUSED, heard(REFUSED, level="ERROR")),
        (SEGFAULT, heard(SEGFAULT, level="ERROR")),
        ("nanobind: leaked 4 instances!", heard("nanobind: leaked 4 instances!")),
        ("a\x00b\x07c\x9b", heard("a\ufffdb\ufffdc\ufffd")),
    ],
)
def test_each_program_s_line_is_read(line: str, expected: dict[str, object]):
    record, _ = foreign.parse(line, "engine", NOW)
    assert {name: getattr(record, name) for name in expected} == expected


@pytest.mark.parametrize(
    "line",
    [
        f"INFO 11-22 12:39:36 [a.py:{MANY_DIGITS}] hi",
        f"(A pid={MANY_DIGITS}) INFO 11-22 12:39:36 [a.py:5] hi",
        f"2026/11/22 12:39:36 [error] {MANY_DIGITS}#1: hi",
        f"W1122 12:39:36.1 a.cpp:{MANY_DIGITS}] hi",
        f"a.py:{MANY_DIGITS}: UserWarning: hi",
        f'  File "a.py", line {MANY_DIGITS}, in f',
    ],
)
def test_a_number_without_end_is_no_number(line: str):
    told = foreign.place(foreign.parse(line, "engine", NOW)[0])
    assert told.message.endswith(("hi", "in f")) and told.line_number is None


def test_a_consumer_that_breaks_stops_no_reading_and_is_told(tmp_path: Path):
    seen: list[str] = []

    def on_line(line: Line) -> None:
        if line.text.startswith("bad"):
            raise KeyError("deep inside")
        seen.append(line.text)

    argv = [sys.executable, "-c", "print('one\\nbad\\nbad again\\ntwo')"]
    one = child.start("engine", argv, env={}, cwd=tmp_path, on_line=on_line)
    one.ended(os.waitpid(one.pid, 0)[1])
    one.finish_output(60)
    assert seen == ["one", "KeyError: 'deep inside'; a line of engine was not dealt with", "two"]
    assert list(one.lines) == ["one", "bad", "bad again", "two"]


def test_a_request_id_is_found_and_what_was_sent_is_not_repeated():
    told, _ = foreign.parse(
        "(A pid=1) INFO 11-22 12:39:36 [x.py:1] Received request chatcmpl-1a2b3c: params", "engine", 0
    )
    assert told.request_id == "chatcmpl-1a2b3c"
    for echo in (
        "  Value error [type=value_error, input_value='say \\'CANARY\\' to', input_type=str]",
        "[type=missing, input_value={'role': 'CANARY'}, input_type=dict]",
        "{'type': 'missing', 'loc': ('body',), 'input': {'messages': 'CANARY'}}",
        "Error in create_messages: the tool CANARY has no name",
        'INFO:     1.2.3.4:5 - "POST /v1/chat/completions?q=CANARY HTTP/1.1" 200 OK',
        f'2026/11/22 15:54:25 [error] 1#1: {CLOSED}"GET /a?q=CANARY HTTP/1.1", referrer: "http://CANARY/"',
    ):
        assert "CANARY" not in foreign.parse(echo, "engine", 0)[0].message
        assert "CANARY" in foreign.parse(echo, "engine", 0, content=True)[0].message
        assert "CANARY" not in Journal().tidy(echo)


class Heard:
    """A reader with a clock that stands still until it is moved, and what it passed on."""

    def __init__(self, *, joins: bool) -> None:
        self.now = NOW
        self.records: list[Record] = []
        self.reader = Reader(
            "engine", self.records.append, joins=lambda: joins, content=lambda: False, clock=lambda: self.now
        )

    def hear(self, data: str) -> "Heard":
        for line in lines_of(data.encode()):
            self.reader.see(line)
        return self

    def settle(self) -> list[tuple[str, str]]:
        self.now += 2 * SETTLE_SECONDS
        self.reader.settle()
        return [(record.level, record.message) for record in self.records]


TRACEBACK = """Traceback (most recent call last):
  File "/opt/vllm/engine.py", line 3, in f
    g()

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/vllm/core.py", line 12, in main
    f()
pydantic_core.ValidationError: 1 validation error for X
  Value error, no [type=value_error]
"""


def test_a_traceback_is_one_record_in_json_with_its_innermost_frame():
    heard = Heard(joins=True).hear("INFO:     before\n" + TRACEBACK + "INFO:     after\nplain\n")
    found = heard.settle()
    assert sorted(found) == sorted(
        [("INFO", "before"), ("INFO", "after"), ("INFO", "plain"), ("ERROR", TRACEBACK.replace("\n\n", "\n").strip())]
    )
    traceback = next(r for r in heard.records if r.level == "ERROR")
    assert (traceback.file_name, traceback.line_number) == ("core.py", 12)


def test_the_traceback_of_a_failed_request_belongs_to_uvicorn_s_line():
    heard = Heard(joins=True).hear("ERROR:    Exception in ASGI application\n" + TRACEBACK)
    ((level, message),) = heard.settle()
    assert level == "ERROR" and message.startswith("Exception in ASGI application\nTraceback")
    assert heard.records[0].process == "uvicorn"


def test_a_message_of_several_lines_is_one_record_though_another_process_speaks_between():
    head, other = "(A pid=1) ERROR 11-22 12:39:36 [a.py:5] ", "(B pid=2) INFO 11-22 12:39:36 [b.py:5] "
    heard = Heard(joins=True).hear(f"{head}one\r\n{other}hello\n{head}two\r\n{head}three\n{head}alone\n")
    assert heard.settle() == [("INFO", "hello"), ("ERROR", "one\ntwo\nthree"), ("ERROR", "alone")]


def test_what_comes_later_is_another_message():
    heard = Heard(joins=True).hear("plain\n")
    heard.settle()
    assert heard.hear("  indented\n").settle() == [("INFO", "plain"), ("INFO", "  indented")]


def test_people_see_each_line_at_once_and_its_level():
    heard = Heard(joins=False).hear(TRACEBACK + "INFO:     after\n")
    assert {record.level for record in heard.records[:-1]} == {"ERROR"}
    assert [r.message for r in heard.records] == [line for line in TRACEBACK.splitlines() if line] + ["after"]


def test_only_the_last_state_of_a_progress_bar_is_told():
    assert Heard(joins=True).hear("\r 0%\r 50%\r100%\n").settle() == [("INFO", "100%")]


def test_an_endless_message_is_cut():
    frame = '  File "/x.py", line 1, in f\n' + "    y\n"
    heard = Heard(joins=True).hear("Traceback (most recent call last):\n" + frame * 5000)
    assert all(len(message) < 90_000 for _, message in heard.settle())


RECORD = Record("INFO", NOW, "engine", "one\ntwo", "core.py", 42, "Worker TP0", 12)


def test_a_record_for_people_and_as_json():
    prefix = "INFO 2026-03-03 12:00:10.079 engine/Worker_TP0 core.py:42] "
    assert as_text(RECORD) == f"{prefix}one\n{prefix}two"
    assert as_text(Record("ERROR", NOW, "front", "x")) == "ERROR 2026-03-03 12:00:10.079 front] x"
    assert json.loads(as_json(RECORD)) == {
        "level": "INFO",
        "time": "2026-03-03T12:00:10.079Z",
        "file_name": "core.py",
        "line_number": 42,
        "message": "one\ntwo",
        "stage": "engine",
        "process": "Worker TP0",
        "pid": 12,
    }
    assert list(json.loads(as_json(Record("INFO", NOW, "front", "x"))))[:5] == [
        "level", "time", "file_name", "line_number", "message",
    ]  # fmt: skip


@given(st.text(max_size=200))
def test_whatever_is_said_json_is_one_line_and_tells_it(text: str):
    written = as_json(Record("INFO", NOW, "engine", text))
    assert written.isascii() and len(written.splitlines()) == 1
    assert json.loads(written)["message"] == text
    assert said(written) == tuple(text.splitlines())


def test_what_was_said_is_read_back_from_both_forms():
    assert [said(line) for line in as_text(RECORD).splitlines()] == [("one",), ("two",)]
    assert said("another line") == ("another line",)
    assert said('{"level": 3') == ('{"level": 3',)


def test_every_line_of_ours_names_where_it_was_said(capsys: pytest.CaptureFixture[str]):
    journal = Journal()
    journal.configure(level="INFO", secrets=[Secret("my-key")], as_json=True)
    journal.warning("cache", "the key\nis my-key")
    document = json.loads(capsys.readouterr().out)
    assert document["message"] == "the key is ***"
    assert document["file_name"] == "test_entrypoint_log_lines.py" and document["line_number"] > 100
    assert (document["level"], document["stage"]) == ("WARNING", "cache")


def test_events_have_members_in_json_and_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]):
    journal = Journal()
    journal.configure(level="WARNING", secrets=(), as_json=True)
    journal.event("weights", "stage_end", "done", seconds=1.5)
    see = journal.reader("engine")
    see(Line("(A pid=1) INFO 11-22 12:39:36 [a.py:5] quiet"))
    see(Line("(A pid=1) ERROR 11-22 12:39:36 [a.py:5] loud"))
    journal.configure(level="INFO", secrets=(), as_json=True)
    journal.event("weights", "stage_end", "done", seconds=1.5)
    loud, event = map(json.loads, capsys.readouterr().out.splitlines())
    assert loud["message"] == "loud"
    assert (event["event"], event["seconds"], event["message"]) == ("stage_end", 1.5, "done")


class Clogged(io.StringIO):
    """A stream whose reader does not read until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(30)
        return super().write(text)


def test_a_reader_that_is_slow_holds_nobody_and_learns_what_it_missed():
    stream = Clogged()
    journal = Journal(stream)
    journal.start_writing()
    see = journal.reader("engine")
    for number in range(2500):
        see(Line(f"(A pid=1) INFO 11-22 12:39:36 [a.py:5] {number} " + "x" * 15_000))
    stream.free.set()
    journal.close(30)
    lines = stream.getvalue().splitlines()
    assert 100 < len(lines) < 2500
    assert sum("lines of this log were left out" in line for line in lines) == 1


SERVER_THAT_ENDS = """
from entrypoint import __main__ as entry
from entrypoint.observability.failure import bug, tell

def main(journal):
    journal.start_writing()
    for _ in range(200):
        journal.line("x" * 1000)
    if {fails}:  # more than what the pipe has left
        tell(bug(ValueError("no" * 5000)), journal)
    return 143

entry.main = main
entry.run()
"""


@pytest.mark.parametrize("fails", [False, True], ids=["stop", "failure"])
def test_a_pipe_that_nobody_reads_does_not_hold_the_end_up(fails: bool):
    unread, full = os.pipe()
    try:
        code = SERVER_THAT_ENDS.format(fails=fails)
        ended = subprocess.run(
            [sys.executable, "-E", "-c", code], check=False, stdout=full, stderr=full, cwd=ROOT, timeout=60
        )
        assert ended.returncode == 143
    finally:
        os.close(unread)
        os.close(full)


def test_a_reader_that_has_gone_changes_no_exit_code():
    gone, nobody_reads = os.pipe()
    os.close(gone)
    try:
        code = SERVER_THAT_ENDS.format(fails=True)
        ended = subprocess.run(
            [sys.executable, "-E", "-c", code], check=False, stdout=nobody_reads, cwd=ROOT, timeout=60
        )
        assert ended.returncode == 143
    finally:
        os.close(nobody_reads)


def test_closing_writes_what_was_held_back_and_later_lines_come_at_once():
    stream = io.StringIO()
    journal = Journal(stream)
    journal.configure(level="INFO", secrets=(), as_json=True)
    journal.start_writing()
    see = journal.reader("engine")
    see(Line("Traceback (most recent call last):"))
    see(Line("ValueError: no"))
    journal.close()
    journal.info("stop", "stopped")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "Traceback (most recent call last):\nValueError: no",
        "stopped",
    ]


def test_keys_that_users_give_to_the_engine_or_to_the_sender_of_traces_are_masked(capsys: pytest.CaptureFixture[str]):
    arguments = [
        *("--hf-token", "key-one", "--max-model-len=1234567", "--other-secret=key-two", "--x.api-key", "key-three"),
        *("--kv-transfer-config", '{"role": "both", "extra": [{"password": "key-four", "port": "1234567"}]}'),
        *("--broken", '{"password": ', "--empty-token", "--last-token", "short"),
    ]
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=key%20five,x=y", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "k=key-six"}
    settings = read({"NIM_RECIPE": "demo", **headers}, arguments)
    journal = Journal()
    journal.configure(level="INFO", secrets=settings.secrets)
    journal.info("engine", " ".join([*arguments, *headers.values(), "decoded: key five"]))
    told = capsys.readouterr().out
    assert not [n for n in ("one", "two", "three", "four", "five", "six") if f"key-{n}" in told or f"key {n}" in told]
    assert told.count("1234567") == 2 and "x=y" in told and "short" in told


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_stop_the_reading_and_each_line_is_told_in_the_one_shape(data: bytes, as_objects: bool):
    stream = io.StringIO()
    journal = Journal(stream)
    journal.configure(level="DEBUG", secrets=(), as_json=as_objects)
    see = journal.reader("engine")
    for line in lines_of(data):
        see(line)
    journal.close()
    for line in stream.getvalue().split("\n")[:-1]:
        assert list(json.loads(line))[:1] == ["level"] if as_objects else said(line) != (line,)

"""The report of the start, its files, and how the load is watched."""

import json
import re
import struct
import zlib
from types import SimpleNamespace

import pytest

from entrypoint.engine.loading import StallWatch, await_engine, step_of
from entrypoint.health.warmup import picture
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.processes.child import Usage
from entrypoint.stages.front import await_front
from entrypoint.state import open_state
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.core.stages import StageFile, report_from_json


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "s")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def report(state, clock):
    return Report(state, "1.0", clock=clock)


def written(state):
    return report_from_json(json.loads((state.public / "startup.json").read_text()))


def test_a_stage_runs_and_is_done(state, clock, report):
    with report.stage("weights"):
        clock.now = 2.5
        report.touch()
        current = written(state).current
        assert (current.name, current.state, current.seconds) == ("weights", "running", 2.5)
    clock.now = 9.0
    with report.stage("engine"):
        done = written(state).stages[5]
        assert (done.name, done.state, done.seconds) == ("weights", "done", 2.5)


def test_bytes_are_written_at_most_every_fifth_of_a_second(state, clock, report):
    with report.stage("weights"):
        report.progress("weights", bytes=10, total=100)
        assert written(state).stages[5].bytes is None
        clock.now = 0.25
        files = (StageFile("a.safetensors", 20, 100, "fetching"),)
        report.progress(
            "weights", bytes=20, total=100, rate=80.0, eta=1.0, retries=1, connections=3, phase="fetching", files=files
        )
        stage = written(state).stages[5]
        assert (stage.bytes, stage.total, stage.rate, stage.eta) == (20, 100, 80.0, 1.0)
        assert (stage.retries, stage.connections, stage.phase, stage.files) == (1, 3, "fetching", files)
    stage = written(state).stages[5]
    assert (stage.bytes, stage.retries) == (20, 1), "what was done stays"
    assert (stage.rate, stage.eta, stage.connections, stage.phase, stage.files) == (None, None, None, None, ())


def test_a_report_of_a_newer_container_is_read(state, report):
    with report.stage("weights"):
        report.progress("weights", files=(StageFile("a", 1, 2, "fetching"),))
        report.touch()
        document = json.loads((state.public / "startup.json").read_text())
    document["new"] = document["stages"][5]["new"] = document["stages"][5]["files"][0]["new"] = 1
    assert report_from_json(document).stages[5].files[0].size == 2


def test_a_failing_stage_keeps_the_errors_id(state, report):
    error = NimctlError("weights-missing", "m", cause="c", fix="f")
    with pytest.raises(NimctlError), report.stage("weights"):
        raise error
    report.failed(error.to_json())
    document = written(state)
    assert (document.state, document.current.name, document.current.error_id) == (
        "failed",
        "weights",
        "weights-missing",
    )
    assert document.error["fix"] == "f"


def test_the_echo_of_a_death_does_not_hide_its_cause(report):
    """The engine's death is told from one thread, and the start that waited for it ends in another."""
    with pytest.raises(LookupError), report.stage("engine"):
        report.failed({"id": "engine-died"})
        raise LookupError("nothing to wait for any more")
    assert report.current.stages[6].error_id == "engine-died"


def test_ready_is_a_file_that_goes_when_stopping(state, report):
    report.ready()
    assert state.ready.exists()
    report.stopping()
    assert not state.ready.exists()
    report.ready()
    assert not state.ready.exists(), "a start that finishes late does not open the door again"


def test_a_start_whose_engine_is_lost_cannot_become_ready(state, report):
    """The end of the engine and the end of the warm-up may come in the same moment, from two threads."""
    report.withdraw()
    report.ready()
    assert not state.ready.exists()
    report.restarting({"id": "engine-died"})
    report.ready()
    assert not state.ready.exists(), "the start that lost its engine is slow to notice"
    with report.stage("cache"):
        pass
    report.ready()
    assert state.ready.exists()


def test_the_bodies_name_the_stage(state, report):
    with report.stage("engine"):
        unready = json.loads((state.public / "unready.json").read_text())
        assert (unready["status"], unready["stage"]) == ("unavailable", "engine")
        assert "stage engine" in json.loads((state.public / "refusal.json").read_text())["error"]["message"]


def test_the_state_folder_is_private_and_clean(tmp_path):
    root = tmp_path / "s"
    (root / "public").mkdir(parents=True)
    (root / "public/ready").touch()
    (root / "engine.sock").touch()
    state = open_state(root)
    assert root.stat().st_mode & 0o777 == 0o700
    assert not state.ready.exists()
    assert not state.engine_socket.exists()


def test_a_state_folder_whose_socket_path_is_too_long(tmp_path):
    with pytest.raises(NimctlError) as caught:
        open_state(tmp_path / ("x" * 120))
    assert caught.value.id == "config-invalid"


def test_a_state_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NimctlError) as caught:
        open_state(tmp_path / "file/s")
    assert caught.value.id == "config-invalid"


def test_log_lines(capsys):
    journal = Journal(level="WARNING", secrets=[Secret("my-key")])
    journal.info("engine", "not shown")
    journal.warning("engine", "two\nlines with my-key and nvapi-0123456789")
    line = capsys.readouterr().out
    assert re.fullmatch(
        r"WARNING \d{4}-\d\d-\d\d [\d:.]{12} engine test_entrypoint_report.py:\d+\] two lines with \*\*\* and \*\*\*\n",
        line,
    )


def test_steps_of_the_engines_log():
    shards = "(Worker pid=7) Loading safetensors checkpoint shards:  50% Completed | 32/64 [00:10<00:10,  3.1it/s]"
    assert step_of(shards) == "loading weights, file 32 of 64"
    assert step_of("INFO CPU KV cache size: 465,920 tokens") == "cache allocated"
    assert step_of("anything else") is None


def test_a_stall_is_no_output_no_cpu_and_no_reading(clock):
    used = Usage(0.0, 0)
    watch = StallWatch(1, clock, lambda _: used)
    clock.now = 100.0
    assert watch.idle_seconds(0) == 100.0
    assert watch.idle_seconds(1) == 0.0, "a line"
    clock.now = 150.0
    used = Usage(0.5, 1000)
    assert watch.idle_seconds(1) == 50.0, "a process that wakes up now and then does nothing"
    clock.now = 160.0
    used = Usage(5.0, 1000)
    assert watch.idle_seconds(1) == 0.0, "work"
    clock.now = 170.0
    used = Usage(5.0, 2**24)
    assert watch.idle_seconds(1) == 0.0, "reading"


KEY = "a-key-of-somebody"


def test_what_a_report_shows_of_errors_holds_no_secret(state):
    journal = Journal()
    journal.configure(level="INFO", secrets=[Secret(KEY)])
    report = Report(state, "1.0", clean=journal.clean_document)
    error = NimctlError("engine-died", f"it said {KEY}", cause=KEY, fix="Look.", evidence=[KEY]).to_json()
    report.restarting(error)
    report.failed(error)
    told = json.loads((state.public / "startup.json").read_text())
    assert (
        told["last_error"] == told["error"] == {**error, "message": "it said ***", "cause": "***", "evidence": ["***"]}
    )


def test_what_a_start_that_stalls_or_has_no_front_shows_of_their_lines_is_tidy():
    journal = Journal()
    journal.configure(level="INFO", secrets=[Secret(KEY)])
    lines = [f"got {KEY}", "Error in create_messages: what somebody wrote"]
    child = SimpleNamespace(pid=0, exit=None, lines=lines, line_count=2, finish_output=lambda seconds: None)
    with pytest.raises(NimctlError) as stalled:
        await_engine(
            child, lambda: False, stall_seconds=0, still_wanted=lambda: True, idle=lambda own: 1.0, tidy=journal.tidy
        )
    child.exit = 1
    with pytest.raises(NimctlError) as unfronted:
        await_front(None, child, journal.tidy)
    for caught in (stalled, unfronted):
        assert caught.value.evidence == ("got ***", "Error in create_messages: ***")
        assert caught.value.cause.endswith("Error in create_messages: ***")


def test_the_picture_is_a_png():
    data = picture(4)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (4, 4)
    start = data.index(b"IDAT") + 4
    length = struct.unpack(">I", data[start - 8 : start - 4])[0]
    assert len(zlib.decompress(data[start : start + length])) == 4 * (1 + 4 * 3)

"""Progress as fields, as lines of a log and as lines of JSON."""

from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.engine.model import Model
from entrypoint.weights import cachefolder, transfers
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import FileProgress, Progress
from nimctl.core.recipes import load
from nimctl.core.stages import MOST_FILES
from tests.lib.mounts import tmpfs
from tests.lib.users import needs_root

HALF = Progress(297_600_000_000, 595_200_000_000, "model-1.safetensors", rate=1.2e9, eta=248.0, connections=16)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (HALF, "fetching 297.6 GB of 595.2 GB (50 %), 1.2 GB/s, 4 min left, 16 connections"),
        (replace(HALF, retries=1, detail="slow"), "fetching 297.6 GB of 595.2 GB (50 %), 1.2 GB/s, 4 min left, "
         "16 connections, 1 retry, slow"),
        (Progress(0, phase="resolving"), "asking the source for its files"),
        (Progress(0, 10, phase="waiting", detail="another process writes"), "another process writes"),
        (Progress(5_000, 10_000, phase="verifying"), "verifying 5.0 kB of 10.0 kB (50 %)"),
        (Progress(10, phase="done"), "complete 10 B"),
        (Progress(0, 0), "fetching 0 B"),
    ],
)  # fmt: skip
def test_words(progress, words):
    assert transfers.in_words(progress) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, words):
    assert transfers.duration(seconds) == words


def said(steps, clock=None):
    """What is said about steps of (seconds, progress)."""
    clock, told = Clock(), []
    lines = transfers.Lines(told.append, clock=clock)
    for now, progress in steps:
        clock.now = now
        lines.see(progress)
    return told, lines


def test_a_fast_download_says_little():
    told, lines = said(
        [(second / 2, Progress(second, 100)) for second in range(100)] + [(50, Progress(100, 100, phase="done"))]
    )
    assert len(told) == 10, "every 5 % but not within 5 s"
    assert lines.summary == ": 100 B after 50 s"


def test_a_slow_download_speaks_every_minute():
    told, _ = said([(second, Progress(1, 10**9)) for second in range(0, 601)])
    assert len(told) == 11


def test_a_new_phase_is_always_said():
    told, lines = said(
        [(0, Progress(0, phase="resolving")), (0, Progress(0, 9, phase="waiting", detail="x")), (0, Progress(0, 9))]
    )
    assert len(told) == 3
    assert lines.summary == ": 0 B after 0 s"


def test_nothing_was_done():
    assert said([(0, Progress(9, 9, phase="done"))])[0] == []
    assert said([(0, Progress(9, 9, phase="done"))])[1].summary == ""


def test_json_lines_tell_each_file_when_its_state_changes():
    clock, written = Clock(), []
    lines = transfers.JsonLines(written.append, clock=clock)

    def see(now, *states, phase="fetching"):
        clock.now = now
        files = tuple(FileProgress(str(n), 1, 2, state) for n, state in enumerate(states))
        lines.see(Progress(1, 4, phase=phase, files=files))

    see(0, "fetching", "waiting")
    see(0.5, "done", "waiting")
    see(1.0, "done", "fetching")
    see(2.0, "done", "fetching")
    see(2.1, "done", "done", phase="done")
    assert [[(file["path"], file["state"]) for file in line["files"]] for line in written] == [
        [("0", "fetching")], [("0", "done"), ("1", "fetching")], [], [("1", "done")],
    ]  # fmt: skip
    assert written[0]["schema"] == "nimctl.progress/1"
    assert written[0]["event"] == "progress"


def test_what_moves_is_shown_when_there_are_too_many_files():
    files = [FileProgress(f"{n:05d}", 0, 1, "done") for n in range(MOST_FILES)]
    files += [FileProgress("w", 0, 1, "waiting"), FileProgress("f", 0, 1, "fetching")]
    shown = transfers.stage_fields(Progress(0, 9, files=tuple(files)))["files"]
    assert len(shown) == MOST_FILES
    assert [file.path for file in shown[:3]] == ["f", "w", "00000"]


def test_an_address_is_shown_without_its_password():
    model = Model(load("demo"), "https://me:canary@host/path?sig=canary", ("a",))
    assert model.source == "https://host/path"
    assert replace(model, weights="/a/b").source == "/a/b"


@needs_root
def test_compiled_code_goes_where_it_can_be_loaded(tmp_path):
    data, code = tmp_path / "data", tmp_path / "code"
    with tmpfs(data, "size=1m,noexec"), tmpfs(code, "size=1m"):
        chosen = cachefolder.substitute((data, code))
        assert (chosen.folder.parent, chosen.executable) == (code, True)
        assert chosen.folder.stat().st_mode & 0o777 == 0o700
        chosen = cachefolder.substitute((data,))
        assert (chosen.folder.parent, chosen.executable) == (data, False)


def test_code_is_not_loaded_from_where_others_can_put_it(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    open_to_all = cachefolder.substitute((one,)).folder
    open_to_all.chmod(0o777)
    assert cachefolder.substitute((one, other)).folder.parent == other
    with pytest.raises(NimctlError) as caught:
        cachefolder.substitute((one, Path("/proc/nowhere")))
    assert caught.value.id == "cache-not-writable"

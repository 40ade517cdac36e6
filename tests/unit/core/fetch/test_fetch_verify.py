"""Hashing side by side: a thread that dies or hangs vouches for nothing, and keeps nobody waiting."""

import threading
from pathlib import Path

import pytest

from nimctl.core.fetch import verify
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from tests.lib.checkpoints import sha256

ENOUGH = 60  # seconds that no test waits for, unless what it tests is broken


def nothing(_: int, __: File) -> None:
    """For whoever does not watch."""


@pytest.fixture
def items(tmp_path: Path) -> list[tuple[Path, File]]:
    """Eight files, all right."""
    found = []
    for name in "abcdefgh":
        (tmp_path / name).write_text(name)
        found.append((tmp_path / name, File(name, 1, sha256(name.encode()))))
    return found


def refuse(*_: object) -> memoryview:
    raise MemoryError("no room for a buffer")


@pytest.mark.parametrize("check", [verify.judge, verify.wrong_files])
@pytest.mark.parametrize("broken", ["new_buffer", "_judge", "_Content"])
def test_what_ends_a_thread_is_raised(items, monkeypatch, broken, check):
    monkeypatch.setattr(verify, broken, refuse)
    with pytest.raises(MemoryError, match="no room"):
        check(items, on_bytes=nothing, stop=Stop())


def test_the_death_of_one_thread_of_several_is_raised(items, monkeypatch):
    real = verify._judge

    def judge(path, *rest):
        return refuse() if path.name == "c" else real(path, *rest)

    monkeypatch.setattr(verify, "_judge", judge)
    with pytest.raises(MemoryError):
        verify.wrong_files(items, on_bytes=nothing, stop=Stop(), threads=3)


def test_a_missing_verdict_is_an_error_unless_it_was_stopped(items, monkeypatch):
    monkeypatch.setattr(verify, "_judge", lambda *_: None)
    with pytest.raises(RuntimeError, match="8 of 8 files"):
        verify.judge(items, on_bytes=nothing, stop=Stop())


def test_what_was_not_looked_at_is_not_right(items):
    stop = Stop()
    stop.set()
    assert verify.judge(items, on_bytes=nothing, stop=stop) == []
    assert verify.wrong_files(items, on_bytes=nothing, stop=stop) == [file for _, file in items]


def test_only_what_has_no_right_verdict_is_wrong(items, monkeypatch):
    items[3][0].write_text("x")
    assert verify.wrong_files(items, on_bytes=nothing, stop=Stop()) == [items[3][1]]
    known = verify.judge(items, on_bytes=nothing, stop=Stop())
    monkeypatch.setattr(verify, "judge", lambda *_, **__: known[:6])
    assert verify.wrong_files(items, on_bytes=nothing, stop=Stop()) == [items[3][1], items[6][1], items[7][1]]


def test_a_disk_that_does_not_answer_hides_no_stop(items, monkeypatch):
    stop, reached, answered = Stop(), threading.Event(), threading.Event()
    real = verify._judge

    def judge(*arguments):
        reached.set()
        answered.wait(ENOUGH)
        return real(*arguments)

    def stopper():
        reached.wait(ENOUGH)
        stop.set()

    monkeypatch.setattr(verify, "_judge", judge)
    thread = threading.Thread(target=stopper)
    thread.start()
    try:
        assert verify.judge(items, on_bytes=nothing, stop=stop, threads=1) == []
        assert not answered.is_set()
    finally:
        answered.set()
        thread.join()


def test_threads_end_when_the_caller_fails(items):
    def fail(_: int, __: File) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        verify.judge(items, on_bytes=fail, stop=Stop(), threads=1)
    for thread in threading.enumerate():
        if thread.name.startswith("verify-"):
            thread.join(ENOUGH)
            assert not thread.is_alive()

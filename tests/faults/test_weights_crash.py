"""Fault: a writer of the cache is killed, interrupted, or not alone."""

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.fetch import store, writers
from nimctl.core.fetch.retry import Stop
from tests.lib.checkpoints import CONTENT, TinySource, read_tree

# Python announces each of these before it happens, so a process can end itself exactly there.
_STEPS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.symlink",
    "os.chmod",
    "os.remove",
    "os.rmdir",
    "shutil.rmtree",
    "os.utime",
}


@pytest.fixture(autouse=True)
def quick_hearts(monkeypatch):
    """A writer that died before it held its lock is judged by its heart: ten beats, here of 10 ms."""
    monkeypatch.setattr(writers, "BEAT", 0.01)
    monkeypatch.setattr(writers, "_STILL", 0.1)
    monkeypatch.setattr(writers, "_POLL", 0.01)


@pytest.fixture
def paths(folder):
    return CachePaths(folder / "cache")


def ensure(paths: CachePaths, source: TinySource | None = None) -> Path:
    source = source or TinySource()
    return store.ensure(source, source.resolve(), paths, lambda _: None)


def complete(paths: CachePaths) -> Path | None:
    repo, manifest = paths.repo("test/tiny"), TinySource().resolve()
    return repo.snapshot(manifest.revision) if store.is_complete(repo, manifest) else None


def leftovers(paths: CachePaths) -> list[str]:
    """Folders of writers."""
    return sorted(p.name for p in paths.repo("test/tiny").partial.glob("*") if p.name != ".turn")


def forked(action: Callable[[], object]) -> int:
    """The process id of a child that runs `action` and exits with 0, or 1 if it raises."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """Exit code of a child, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(step: int, paths: CachePaths) -> bool:
    """Run a fetch in a process that is killed before its `step`-th access to the disk; False if it ended first."""

    def run() -> None:
        left = step

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in _STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        ensure(paths)

    code = ended(forked(run))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_at_every_single_step_the_cache_recovers(folder):
    step = 1
    while killed_at(step, paths := CachePaths(folder / str(step))):
        taken = complete(paths)
        assert taken is None or read_tree(taken) == CONTENT, f"half a checkpoint was taken for a whole one at {step}"
        assert read_tree(ensure(paths)) == CONTENT, f"no recovery after a kill at step {step}"
        if taken is None:
            assert leftovers(paths) == [], f"something stays behind after a kill at step {step}"
        step += 1
    assert step > 30, "the sweep must have reached past the writing of the files"


def test_killed_on_top_of_a_damaged_cache(folder):
    """Mending replaces files that are in use: at no point may a name be missing that was there before."""
    step, more = 1, True
    while more:
        paths = CachePaths(folder / str(step))
        damaged = ensure(paths) / "model.safetensors"
        damaged.resolve().write_bytes(b"short")
        more = killed_at(step, paths)
        assert damaged.exists()
        assert read_tree(ensure(paths)) == CONTENT
        step += 1
    assert step > 20


def test_many_processes_at_once_all_end_with_the_same_whole_checkpoint(paths):
    reader, writer = os.pipe()

    def wait_then_fetch() -> None:
        os.close(writer)
        os.read(reader, 1)  # returns when the parent closes its end: all start together
        assert read_tree(ensure(paths)) == CONTENT

    children = [forked(wait_then_fetch) for _ in range(8)]
    os.close(reader)
    os.close(writer)
    assert [ended(child) for child in children] == [0] * 8
    assert complete(paths)
    assert leftovers(paths) == []


def test_the_folder_of_a_living_writer_is_left_alone(paths):
    """A second writer comes and goes while the first is in the middle of its files."""

    def come_and_go() -> None:
        with writers.writer(paths.repo("test/tiny"), paths.root, Stop(), lambda _: None) as second:
            assert len(leftovers(paths)) == 2
            assert not second.lost

    first = TinySource(meanwhile=come_and_go)
    assert read_tree(ensure(paths, first)) == CONTENT
    assert first.calls == 1
    assert leftovers(paths) == []


def test_where_locks_do_nothing_a_beating_heart_tells_the_living_from_the_dead(paths, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(writers, "_STILL", 1.0)  # a hundred beats, for machines under load
    first = TinySource(meanwhile=lambda: ensure(paths))
    assert read_tree(ensure(paths, first)) == CONTENT, "the second writer took the first one's folder"
    assert first.calls == 1
    marker = next(paths.repo("test/tiny").markers.glob("*.json"))
    for blob in paths.repo("test/tiny").blobs.iterdir():
        blob.unlink()
    marker.unlink()

    def die_in_the_middle() -> None:
        ensure(paths, TinySource(meanwhile=lambda: os.kill(os.getpid(), signal.SIGKILL)))

    assert ended(forked(die_in_the_middle)) == -signal.SIGKILL
    assert len(leftovers(paths)) == 1
    assert read_tree(ensure(paths)) == CONTENT
    assert leftovers(paths) == [], "its heart stood still, so its folder was taken over"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_raises_ends_the_fetch_at_once_and_leaves_nothing(paths, number):
    class Stopped(BaseException):
        pass

    def handler(*_: object) -> None:
        raise Stopped

    before = signal.signal(number, handler)
    try:
        with pytest.raises(Stopped):
            ensure(paths, TinySource(meanwhile=lambda: signal.pthread_kill(threading.get_ident(), number)))
    finally:
        signal.signal(number, before)
    assert complete(paths) is None
    assert leftovers(paths) == []
    assert read_tree(ensure(paths)) == CONTENT

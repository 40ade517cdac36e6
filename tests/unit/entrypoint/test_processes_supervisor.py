"""What the supervisor and the guardian keep of what has ended: nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from entrypoint.processes import guardian

ROOT = Path(__file__).parents[3]

_FORGETS = """
import gc, pathlib, weakref
from entrypoint.processes.supervisor import Died, Finished, Supervisor

class Begun:
    def close(self):
        print("told")

def start():
    begun = Begun()
    supervisor.on_close(begun.close)
    child = supervisor.spawn("engine", ["/bin/true"], env={}, cwd=pathlib.Path("/"), on_line=print)
    kept.extend(map(weakref.ref, (begun, child)))

supervisor, kept = Supervisor(), []
supervisor.run_start(start)
events = [supervisor.next_event(30), supervisor.next_event(30)]
[died] = [event for event in events if isinstance(event, Died)]
died.child.finish_output(30)
supervisor.await_start(30)
del died, events
gc.collect()
print([ref() for ref in kept], supervisor.living())
supervisor.close()
"""


def python(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_an_ended_start_and_its_child_are_forgotten() -> None:
    with python(_FORGETS) as supervisor:
        out, _ = supervisor.communicate(timeout=60)
    assert (out, supervisor.returncode) == ("[None, None] ()\n", 0)


@contextmanager
def group() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own."""
    with subprocess.Popen(["sleep", "600"], process_group=0) as one:
        yield one
        one.kill()


def test_the_guardian_is_told_which_groups_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes: list[int] = []

    def shell(*_: object, stdin: int, **__: object) -> SimpleNamespace:
        pipes.append(os.dup(stdin))
        return SimpleNamespace(pid=1)

    monkeypatch.setattr(guardian, "subprocess", SimpleNamespace(Popen=shell, DEVNULL=subprocess.DEVNULL))
    one = guardian.Guardian()
    with group() as first, group() as second, group() as third:
        one.guard(first.pid)
        one.guard(second.pid)
        first.kill()
        first.wait()
        one.guard(third.pid)
        told = os.read(pipes[0], 4096).decode().split()
    assert told == [str(number) for number in (first.pid, second.pid, -first.pid, third.pid)]
    for handle in (one._pipe, *pipes):
        assert handle is not None
        os.close(handle)


def test_a_group_that_has_ended_is_not_killed_again() -> None:
    """Its number may be anybody's by then."""
    with group() as elses, group() as ours, group() as known:
        lines = f"{elses.pid}\n{known.pid}\n-{elses.pid}\n{ours.pid}\n"
        subprocess.run(["/bin/sh", "-c", guardian._SCRIPT], input=lines.encode(), check=False, timeout=60)
        assert (ours.wait(60), known.wait(60)) == (-signal.SIGTERM, -signal.SIGTERM)
        assert elses.poll() is None

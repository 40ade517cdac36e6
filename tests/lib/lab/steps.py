"""How the lab works on a machine: named steps with their seconds, commands that explain failure, daemons by pid."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class LabError(Exception):
    """The lab cannot do something: `cause` says why and `fix` what to do, each one sentence without a full stop."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"{cause}; {fix}")
        self.cause = cause
        self.fix = fix


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say on stderr what is being done and, once done, how many seconds it took."""
    started = time.monotonic()
    say(f"{what} ...")
    yield
    say(f"{what}: {time.monotonic() - started:.1f} s")


def say(what: str) -> None:
    """One line of progress on stderr."""
    sys.stderr.write(f"lab: {what}\n")
    sys.stderr.flush()


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    text_in: str | None = None,
) -> str:
    """Run a command and return its stdout; a failure becomes a LabError with the last lines of its output."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, env=env, input=text_in, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise LabError(f"`{words[0]}` is not there", "run `scripts/lab up` again, or install it") from None
    except subprocess.TimeoutExpired:
        late = f"`{' '.join(words[:4])}` took longer than {timeout:.0f} s"
        raise LabError(late, "look at the machine's load and network") from None
    if done.returncode != 0:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise LabError(f"`{' '.join(words[:6])}` failed: {tail}", "see the message above")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, so that two `up` at once do the work once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def wait_until(ready: Callable[[], bool], *, what: str, seconds: float, log: Path, alive: Callable[[], bool]) -> None:
    """Poll until ready; a LabError with the log's last lines when the process ends first or time runs out."""
    deadline = time.monotonic() + seconds
    while not ready():
        gone, late = not alive(), time.monotonic() > deadline
        if gone or late:
            lines = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
            state = "ended while starting" if gone else f"is not ready after {seconds:.0f} s"
            raise LabError(f"{what} {state}: {' | '.join(lines)}", f"read {log}")
        time.sleep(0.05)


def start_daemon(argv: Sequence[str | Path], *, env: Mapping[str, str], pid_file: Path, log: Path) -> None:
    """Start a process in its own session; remember its pid with its start time, so that a reused pid is never hit.

    It inherits no open file: a lock that the caller's shell holds would be held for as long as the daemon lives.
    """
    words = [str(word) for word in argv]
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        files: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, source.fileno(), number) for number, source in enumerate((nothing, out, out))
        ]
        files += [(os.POSIX_SPAWN_CLOSE, number) for number in inherited_files()]
        pid = os.posix_spawnp(words[0], words, dict(env), file_actions=files, setsid=True)
    pid_file.write_text(f"{pid} {_start_time(pid)}\n")


def inherited_files() -> list[int]:
    """The open files beyond the standard three that a child would get."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return [number for number in numbers if number > 2 and _is_inherited(number)]


def _is_inherited(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # the one with which the folder was listed
        return False


def running_pid(pid_file: Path) -> int | None:
    """The pid of a daemon that start_daemon started, or None when it has ended."""
    try:
        pid, born = pid_file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == born else None


def stop_daemon(pid_file: Path, *, seconds: float = 20) -> bool:
    """TERM, then KILL after `seconds`. Returns whether something was running."""
    pid = running_pid(pid_file)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while running_pid(pid_file) is not None:
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                deadline += seconds
            time.sleep(0.05)
    pid_file.unlink(missing_ok=True)
    return pid is not None


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (clock ticks since boot); None when the process is gone or a zombie."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # reap it, should it be a child of ours that has ended
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]

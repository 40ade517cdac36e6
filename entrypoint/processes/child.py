"""Child processes: started in groups of their own, their output read line by line, every descendant findable."""

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from entrypoint.observability.lines import Line, Splitter
from nimctl.core.diagnosis.exits import Exit
from nimctl.core.errors import NimctlError

KEPT_LINES = 200  # to explain a death
_CHUNK = 65_536  # what a pipe holds

_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """A started process: its output goes line by line to `on_line`, and the last lines are kept.

    Whatever breaks in `on_line`, the reading goes on: a pipe that nobody reads fills, and stops the program in its next
    print. The first time, `on_line` gets a line that tells of it.

    Who reaps it tells it so through `ended`; nothing else may wait for it.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], on_line: Callable[[Line], None]) -> None:
        self.name = name
        self.pid = process.pid
        self.exit: Exit | None = None
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.line_count = 0
        self.last_line_at = time.monotonic()
        self._process = process
        self._on_line = on_line
        self._redrawn = self._fault_told = False
        self._reader = threading.Thread(target=self._read, name=f"{name}-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        splitter = Splitter()
        with self._process.stdout as stream:
            while chunk := os.read(stream.fileno(), _CHUNK):
                self._take(splitter.feed(chunk))
        self._take(splitter.finish())

    def _take(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if self._redrawn:  # a progress bar counts once among the last lines, as it is on a terminal
                self.lines.pop()
            self._redrawn = line.redrawn
            self.lines.append(line.text)
            self.line_count += 1
            self.last_line_at = time.monotonic()
            self._pass_on(line)

    def _pass_on(self, line: Line) -> None:
        try:
            self._on_line(line)
        except Exception as error:
            if not self._fault_told:  # once: a consumer that is broken is told by what of it still works
                self._fault_told = True
                self._pass_on(Line(f"{type(error).__name__}: {error}; a line of {self.name} was not dealt with"))

    def ended(self, status: int) -> None:
        """Record the wait status of the process, which has been reaped."""
        if os.WIFSIGNALED(status):
            self.exit = Exit(None, os.WTERMSIG(status))
        else:
            self.exit = Exit(os.waitstatus_to_exitcode(status), None)
        # Popen must not wait for a process that is gone: its number may belong to another one by now.
        self._process.returncode = os.waitstatus_to_exitcode(status)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and to all that share its group, also when the process itself has ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, if it has not ended."""
        if self.exit is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def finish_output(self, timeout: float) -> None:
        """Wait until what the process wrote has been read; a descendant that keeps the pipe open cannot hold us."""
        self._reader.join(timeout)


def start(
    name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: Callable[[Line], None]
) -> Child:  # fmt: skip
    """Start a program in its own process group, its two outputs joined. Raises `engine-missing` or `front-missing`."""
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    except OSError as error:
        raise NimctlError(
            "front-missing" if name == "front" else "engine-missing",
            f"{argv[0]} cannot be started",
            cause=str(error),
            fix="Install it, or correct NIM_ENGINE_EXECUTABLE; `nimctl doctor` tells what is missing.",
        ) from error
    return Child(name, process, on_line)


@dataclass(frozen=True)
class Usage:
    """CPU seconds and bytes read from storage by a process tree until now."""

    cpu: float
    read: int


def descendants(root: int) -> tuple[int, ...]:
    """Every living process below `root`, nearest first, from /proc; `root` itself is not among them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(children.get(root, ()))
    while waiting:
        pid = waiting.pop(0)
        found.append(pid)
        waiting += children.get(pid, ())
    return tuple(found)


def usage(root: int) -> Usage:
    """What `root` and everything below it have used; processes that vanish meanwhile count as nothing."""
    cpu = read = 0
    for pid in (root, *descendants(root)):
        if fields := _stat(pid):
            cpu += int(fields[11]) + int(fields[12])
        with suppress(OSError, ValueError, IndexError):
            read += int(Path(f"/proc/{pid}/io").read_text().split("read_bytes:")[1].split()[0])
    return Usage(cpu / _TICKS, read)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc_pid_stat(5)); the name before them may hold anything."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return None

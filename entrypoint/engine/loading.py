"""The engine's start: waiting for it by what it does, not by a clock."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from entrypoint.processes.child import Child, Usage, usage
from entrypoint.unixhttp import UnreachableError, get_unix
from nimctl.core.errors import NimctlError

_POLL_SECONDS = 0.2
_USAGE_SECONDS = 1.0
# An idle Python process that waits for a dead sibling wakes now and then; this is more than it uses in ten minutes.
_WORK = Usage(cpu=1.0, read=2**20)

_SHARDS = re.compile(r"checkpoint shards:\s+(\d+)% Completed \| (\d+)/(\d+)")
LOADED = "weights loaded"
_STEPS = (
    (re.compile(r"Starting to load model|Loading model weights|Loading weights"), "loading weights"),
    (re.compile(r"Loading weights took|Model loading took"), LOADED),
    (re.compile(r"torch\.compile|Compiling a graph|Dynamo bytecode"), "compiling"),
    (re.compile(r"GPU KV cache size|CPU KV cache size|# GPU blocks|# CPU blocks"), "cache allocated"),
    (re.compile(r"Capturing CUDA graph|Graph capturing"), "capturing CUDA graphs"),
    (re.compile(r"Starting vLLM server|Available routes"), "opening the API"),
)


def step_of(line: str) -> str | None:
    """What a line of the engine's log says about how far it is, in a few words."""
    if match := _SHARDS.search(line):
        return f"loading weights, file {match[2]} of {match[3]}"
    return next((words for pattern, words in _STEPS if pattern.search(line)), None)


def serves(socket_path: Path, name: str) -> bool:
    """True when the engine is healthy and lists the model under the name that was promised."""
    try:
        if get_unix(socket_path, "/health").status != 200:
            return False
        listed = get_unix(socket_path, "/v1/models").json()
    except UnreachableError:
        return False
    models = listed.get("data") if isinstance(listed, dict) else None
    return isinstance(models, list) and any(isinstance(m, dict) and m.get("id") == name for m in models)


def await_engine(
    child: Child,
    is_up: Callable[[], bool],
    *,
    stall_seconds: float,
    still_wanted: Callable[[], bool],
    tidy: Callable[[str], str],
    idle: Callable[[float], float] = lambda own: own,
) -> None:
    """Return once the engine is up, or once it is no longer wanted (it died, or we are told to stop).

    Raises `engine-stalled` after `stall_seconds` without a line of output, work of the CPU or reading from storage in
    any of its processes. A load of hours that goes on is no stall; `idle` may know of others who load, and it waits.
    `tidy` makes a raw line fit to be shown to anybody.
    """
    watch = StallWatch(child.pid, time.monotonic)
    while still_wanted() and child.exit is None:
        if is_up():
            return
        if idle(watch.idle_seconds(child.line_count)) > stall_seconds:
            lines = [tidy(line) for line in tuple(child.lines)[-5:]]
            last = lines[-1] if lines else "nothing was written"
            raise NimctlError(
                "engine-stalled",
                f"the engine made no progress for {stall_seconds:g} s",
                cause=f"no output, no CPU time and no reading in any of its processes; its last line: {last}",
                fix="Look at GPU links and storage (`nimctl doctor`); NIM_ENGINE_STALL_SECONDS sets the patience.",
                evidence=tuple(lines),
            )
        time.sleep(_POLL_SECONDS)


class StallWatch:
    """Tells for how long a process tree has done nothing."""

    def __init__(self, pid: int, clock: Callable[[], float], measure: Callable[[int], Usage] = usage) -> None:
        self._pid = pid
        self._clock = clock
        self._measure = measure
        self._mark = measure(pid)
        self._lines = 0
        self._since = self._measured = clock()

    def idle_seconds(self, lines: int) -> float:
        """Seconds since the last sign of life; `lines` is how many lines it has written so far."""
        now = self._clock()
        if lines != self._lines:
            self._lines, self._since = lines, now
        if now - self._measured >= _USAGE_SECONDS:
            self._measured = now
            current = self._measure(self._pid)
            # A sum that shrinks means that a process ended: that is life, too.
            if abs(current.cpu - self._mark.cpu) >= _WORK.cpu or abs(current.read - self._mark.read) >= _WORK.read:
                self._mark, self._since = current, now
        return now - self._since

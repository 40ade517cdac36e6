"""How a serving container takes what happens to it: SIGTERM under load and in each stage, kills, and no memory.

The real demo container on the lab's host without GPU, one after the other:

    streams   SIGTERM under 50 streams. Bar: all end with [DONE], the container ends with 143 within D + 2 s
    stages    SIGTERM while the start is in the stage engine, and in the warm-up. Bar: 143 within D + 2 s
    kills     kill -9 of the API server, the engine core, a worker: each in turn. Bar: the right cause, `live` never
              false, the port never closed, and ready again each time
    front     kill -9 of nginx's worker: it comes back; of its master. Bar: exit code not 0, `front-died`
    memory    its memory is limited to little more than it holds, and something in it takes more than that.
              Bar: `engine-out-of-memory`, host memory
    first     kill -9 of PID 1. Bar: the container ends

Orphans are processes of the container that are left on this machine after its end. Bar for all: 0. D, the drain time,
is 30 s.

    scripts/bench serving_ends [--only streams,kills]
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks._container import (
    PYTHON,
    BenchmarkError,
    Host,
    State,
    await_exit,
    free_port,
    inspect,
    lab_host,
    named,
    process_of,
)
from benchmarks._requests import REQUEST_SECONDS, START_SECONDS, ask, stream
from benchmarks._sampling import Sampler

LIVE, READY, STARTUP = "/v1/health/live", "/v1/health/ready", "/v1/health/startup"
DRAIN_SECONDS, MARGIN_SECONDS = 30, 2
STREAMS = 50
_REQUESTS = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([0-9.]+)$", re.MULTILINE)
EXIT_SECONDS = 120  # ends a benchmark that hangs; no bar depends on it


class Demo:
    """One running demo container."""

    def __init__(self, host: Host, name: str, port: int) -> None:
        self.host, self.name, self.port = host, name, port
        self._seen: set[int] = set()

    def until(self, what: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
        """The first true answer; BenchmarkError when none comes in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := what():
                return found
            time.sleep(0.1)
        raise BenchmarkError(f"waited {seconds:g} s in vain:\n{self.host.docker('logs', '--tail', '20', self.name)}")

    def report(self) -> dict[str, Any]:
        """The start's report, empty where nobody answers."""
        return ask(self.port, STARTUP, seconds=REQUEST_SECONDS).document or {}

    def ready(self) -> bool:
        """Whether it says that it is."""
        return ask(self.port, READY, seconds=REQUEST_SECONDS).status == 200

    def requests(self) -> int:
        """How many the engine answers or has in its queue."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/metrics", timeout=REQUEST_SECONDS) as answer:
            found = re.findall(
                rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([0-9.]+)$", answer.read(), re.MULTILINE
            )
        return int(sum(map(float, found)))

    def note_processes(self) -> None:
        """Remember the container's processes, to look for them after its end."""
        lines = self.host.docker("top", self.name, "-eo", "pid").splitlines()[1:]
        self._seen |= {int(line) for line in lines}

    def kill(self, words: str) -> None:
        """SIGKILL for the process whose command line holds `words`."""
        self.note_processes()
        os.kill(process_of(self.host, self.name, words), signal.SIGKILL)

    def ended(self, asked: float) -> tuple[State, float, int]:
        """How it ended, how many seconds after `asked`, and how many of its processes are left."""
        state = await_exit(self.host, self.name, EXIT_SECONDS)
        return state, state.finished - asked, sum(_lives(pid) for pid in self._seen)

    def failure(self) -> dict[str, Any]:
        """The error on the log's last line, empty where there is none."""
        lines = self.host.docker("logs", "--tail", "50", self.name).splitlines()
        document = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return document.get("error") or {}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def demo(host: Host, what: str, *, ready: bool = True) -> Iterator[Demo]:
    """A container of its own for `what`, gone afterwards."""
    port = free_port()
    with named(host, f"bench-{os.getpid()}-{what}") as name:
        host.nimctl("run", "demo", "--detach", "--name", name, "--port", str(port))
        one = Demo(host, name, port)
        if ready:
            one.until(one.ready)
        yield one


def streams(host: Host) -> list[str]:
    """SIGTERM under load: what is wrong with the end."""
    with demo(host, "streams") as one, ThreadPoolExecutor(STREAMS) as pool:
        flowing = [threading.Event() for _ in range(STREAMS)]
        running = [pool.submit(stream, one.port, event) for event in flowing]
        one.until(lambda: one.requests() == STREAMS, REQUEST_SECONDS)
        one.note_processes()
        left = sum(not job.done() for job in running)
        asked = time.time()
        host.docker("kill", "--signal", "TERM", one.name)
        state, seconds, orphans = one.ended(asked)
        lost = sum(not job.result().done for job in running)
    how = f"exit {state.exit_code} after {seconds:.1f} s, {orphans} orphans"
    print(f"streams: {left} of {STREAMS} ran, {lost} lost, {how}")
    in_time = seconds <= DRAIN_SECONDS + MARGIN_SECONDS
    return wrong(lost == 0, left > 0, state.exit_code == 143, in_time, orphans == 0)


def stages(host: Host) -> list[str]:
    """SIGTERM in the middle of a start."""
    found = []
    for stage in ("engine", "warmup"):
        with demo(host, stage, ready=False) as one:
            one.until(lambda stage=stage, one=one: one.report().get("stage") == stage)  # type: ignore[misc]
            one.note_processes()
            asked = time.time()
            host.docker("kill", "--signal", "TERM", one.name)
            state, seconds, orphans = one.ended(asked)
        print(f"stages: {stage}: exit {state.exit_code} after {seconds:.1f} s, {orphans} orphans")
        found += wrong(state.exit_code == 143, seconds <= DRAIN_SECONDS + MARGIN_SECONDS, orphans == 0)
    return found


def kills(host: Host) -> list[str]:
    """Each of the engine's processes is killed once, in one container."""
    found = []
    with demo(host, "kills") as one, Sampler(one.port, LIVE, 20, threads=4) as live:
        for count, (words, cause) in enumerate(
            (("vllm serve", "SIGKILL"), ("VLLM::EngineCore", "EngineCore"), ("VLLM::Worker", "Worker")), 1
        ):
            one.kill(words)
            asked = time.time()
            one.until(lambda count=count: one.report().get("restarts") == count)  # type: ignore[misc]
            last = one.report().get("last_error") or {}
            one.until(one.ready)
            orphans = sum(_lives(pid) for pid in one._seen if pid in _gone(one))
            told = f"{last.get('id')}: {last.get('message')}"
            print(f"kills: {words}: {told}; ready again after {time.time() - asked:.1f} s")
            found += wrong(last.get("id") == "engine-died", cause in told, orphans == 0)
        dark = [sample for sample in live.samples if sample.status != 200]
        print(f"kills: {len(live.samples)} looks at live, {len(dark)} not 200")
        found += wrong(not dark)
        found += front(one)
    return found


def _gone(one: Demo) -> set[int]:
    """The processes seen earlier that the container has no more."""
    lines = one.host.docker("top", one.name, "-eo", "pid").splitlines()[1:]
    return one._seen - {int(line) for line in lines}


def front(one: Demo) -> list[str]:
    """nginx's worker, then its master."""
    workers = one.host.docker("top", one.name, "-eo", "pid,args").splitlines()[1:]
    pid = next(int(line.split()[0]) for line in workers if "nginx: worker" in line)
    os.kill(pid, signal.SIGKILL)
    one.until(lambda: not _lives(pid) and one.ready(), REQUEST_SECONDS)
    one.kill("nginx: master")
    asked = time.time()
    state, seconds, orphans = one.ended(asked)
    error = one.failure()
    print(f"front: master: exit {state.exit_code} after {seconds:.1f} s, {error.get('id')}, {orphans} orphans")
    return wrong(state.exit_code not in (0, None), error.get("id") == "front-died", orphans == 0)


def memory(host: Host) -> list[str]:
    """Another process of the container takes what is left below the limit of its host memory."""
    with demo(host, "memory") as one:
        one.note_processes()
        limit = next(size for size in range(1200, 20000, 200) if _limited(one, size))
        hog = f"b = bytearray({4096 - 64} << 20)\nfor i in range(0, len(b), 4096): b[i] = 1"
        with suppress(BenchmarkError):  # it is killed as well, or the container ends below it
            host.docker("exec", one.name, PYTHON, "-c", hog)
        one.until(lambda: one.report().get("restarts") or inspect(host, one.name).status != "running")
        error = one.report().get("last_error") or one.failure()
    print(f"memory: limit {limit} MiB: {error.get('id')}: {error.get('cause')}")
    return wrong(error.get("id") == "engine-out-of-memory", "host memory" in str(error.get("cause")))


def _limited(one: Demo, mib: int) -> bool:
    """Whether the container's memory could be limited to this: the kernel refuses what is in use already."""
    try:
        one.host.docker("update", "--memory", f"{mib}m", "--memory-swap", f"{mib}m", one.name)
    except BenchmarkError:
        return False
    return True


def first(host: Host) -> list[str]:
    """PID 1 itself is killed."""
    with demo(host, "first", ready=False) as one:
        one.until(lambda: one.report().get("stage") == "engine")
        one.note_processes()
        asked = time.time()
        os.kill(inspect(host, one.name).pid, signal.SIGKILL)
        state, seconds, orphans = one.ended(asked)
    print(f"first: exit {state.exit_code} after {seconds:.1f} s, {orphans} orphans")
    return wrong(state.exit_code == 137, orphans == 0)


def wrong(*claims: bool) -> list[str]:
    """The numbers of the claims that do not hold."""
    return [f"claim {number}" for number, holds in enumerate(claims, 1) if not holds]


PARTS = {"streams": streams, "stages": stages, "kills": kills, "memory": memory, "first": first}


def main(arguments: Sequence[str] | None = None) -> int:
    """All parts, or those that are named; exit code 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    asked = parser.parse_args(arguments).only.split(",")
    missed = []
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-") as home, lab_host(Path(home)) as host:
        for name in asked:
            found = PARTS[name](host)
            print(json.dumps({"name": f"serving_ends {name}", "met": not found, "missed": found}), flush=True)
            missed += found
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

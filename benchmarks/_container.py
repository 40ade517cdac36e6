"""The real demo container on the lab's host without GPU, through the command line and HTTP. Not a benchmark itself."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.lib import lab

PYTHON = "/opt/nim/.venv/bin/python"  # in our images
COMMAND_SECONDS, BUILD_SECONDS = 120, 1800


class BenchmarkError(Exception):
    """The benchmark could not be carried out."""


@dataclass(frozen=True)
class Host:
    """A user without keys and settings on the lab's host without GPU; `image` is the demo's, current."""

    environ: Mapping[str, str]
    image: str

    def docker(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Stdout of the docker command. Raises BenchmarkError when it fails."""
        return _output(["docker", *arguments], self.environ, seconds)

    def nimctl(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> dict[str, Any]:
        """The JSON document of one of our verbs. Raises BenchmarkError when it fails."""
        return _nimctl(self.environ, *arguments, seconds=seconds)


@dataclass(frozen=True)
class State:
    """What `docker inspect` tells: `pid` of the first process on the host, wall-clock seconds, 0.0 for never."""

    status: str
    pid: int
    started: float
    finished: float
    exit_code: int


@contextmanager
def lab_host(home: Path) -> Iterator[Host]:
    """The host, its image built from this tree (seconds when nothing changed)."""
    if reason := lab.available():
        raise BenchmarkError(f"the lab cannot run here: {reason}")
    lab.up()
    kept = {
        name: value
        for name, value in lab.environment("none").items()
        if not name.startswith(("NIMCTL_", "NIM_", "NGC_", "HF_", "XDG_")) or name == "NIMCTL_LAB_DIR"
    }
    folders = {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config", "NIMCTL_CACHE": "cache"}
    own = {"HOME": str(home), **{name: str(home / folder) for name, folder in folders.items()}}
    # The build uses this machine's own pip settings, which belong to the real home.
    built = _nimctl({**kept, "NO_COLOR": "1"}, "build", "cpu", "--base", lab.BASE_IMAGE, seconds=BUILD_SECONDS)
    yield Host({**kept, **own, "NO_COLOR": "1"}, str(built["image"]))


def _nimctl(environ: Mapping[str, str], *arguments: str, seconds: float) -> dict[str, Any]:
    program = str(Path(sys.executable).with_name("nimctl"))
    document: dict[str, Any] = json.loads(_output([program, *arguments, "--json"], environ, seconds))
    return document


def _output(argv: list[str], environ: Mapping[str, str], seconds: float) -> str:
    try:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(str(error)) from error
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise BenchmarkError(f"{' '.join(argv)} exited with {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def named(host: Host, name: str) -> Iterator[str]:
    """A container name that is free again afterwards, whatever happened."""
    try:
        yield name
    finally:
        argv = ["docker", "rm", "--force", "--volumes", name]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                argv,
                env=host.environ,
                capture_output=True,
                timeout=COMMAND_SECONDS,
                start_new_session=True,
                check=False,
            )


def start_demo(host: Host, pool: ThreadPoolExecutor, name: str, port: int) -> Future[dict[str, Any]]:
    """`nimctl run demo --detach` in the pool; returns when Docker tells of the container's start, and not before.

    Who looks at the published port earlier measures the kernel's ARP and not the server: the port forwarder accepts,
    the container's address does not answer yet, and is asked for again only a second later (neigh/*/retrans_time_ms).
    """
    wanted = ("--filter", f"container={name}", "--filter", "event=start")
    argv = ["docker", "events", "--since", f"{time.time():.3f}", *wanted, "--format", "{{.Action}}"]
    with subprocess.Popen(argv, env=host.environ, stdout=subprocess.PIPE, start_new_session=True) as events:
        try:
            run = pool.submit(host.nimctl, "run", "demo", "--detach", "--name", name, "--port", str(port))
            run.add_done_callback(lambda done: events.kill() if done.exception() else None)
            assert events.stdout is not None
            select.select([events.stdout], [], [], COMMAND_SECONDS)  # the event, or the end after a failed run
        finally:
            events.kill()
    return run


def inspect(host: Host, name: str) -> State:
    """How the container is now."""
    state = json.loads(host.docker("inspect", "--format", "{{json .State}}", name))
    started, finished = (_seconds(state[key]) for key in ("StartedAt", "FinishedAt"))
    return State(state["Status"], state["Pid"], started, finished, state["ExitCode"])


def _seconds(text: str) -> float:
    return 0.0 if text.startswith("0001") else datetime.fromisoformat(text).timestamp()


def await_exit(host: Host, name: str, seconds: float) -> State:
    """The state of a container that has ended; BenchmarkError when it has not after `seconds`."""
    host.docker("wait", name, seconds=seconds)
    return inspect(host, name)


def process_began(pid: int) -> float:
    """Wall-clock seconds at which a process of this machine was forked, to 0.01 s: proc_pid_stat(5), starttime."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def process_of(host: Host, name: str, words: str) -> int:
    """The process id, on this machine, of the container's process whose command line holds `words`."""
    lines = host.docker("top", name, "-eo", "pid,args").splitlines()[1:]
    found = [int(line.split()[0]) for line in lines if words in line]
    if len(found) != 1:
        raise BenchmarkError(f"{len(found)} processes of {name} are called {words!r}:\n" + "\n".join(lines))
    return found[0]


def bare_seconds(host: Host, name: str) -> float:
    """StartedAt to FinishedAt of a container of the same image whose Python has nothing to do."""
    with named(host, name):
        host.docker("run", "--name", name, "--network", "none", "--entrypoint", PYTHON, host.image, "-c", "")
        state = inspect(host, name)
    return state.finished - state.started


def free_port() -> int:
    """A port of the loopback address that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

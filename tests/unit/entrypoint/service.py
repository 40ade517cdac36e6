"""Runs the real entrypoint with the real nginx and a stand-in engine, for tests of their behaviour together."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoint.processes.child import descendants
from tests.lib.checkpoints import write_folder

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0

needs_nginx = pytest.mark.skipif(
    not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()), reason="nginx is not installed"
)


@dataclass(frozen=True)
class Response:
    """Status, headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def until(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true value of `what()`; fails the test when none comes."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.005)
    return value


class Service:
    """One entrypoint. `fake` is the folder through which the stand-in engine is told what to do."""

    def __init__(self, place: Path, *, arguments: tuple[str, ...] = (), **environ: str) -> None:
        self.fake = place / "fake"
        self.state = place / "state"
        self.port = free_port()
        self.cache = place / "cache"
        self._place = place
        self._arguments = arguments
        self._environ = environ
        self.fake.mkdir()
        self.cache.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def mode(self, word: str) -> "Service":
        (self.fake / "mode").write_text(word)
        return self

    def hold(self, what: str) -> "Service":
        (self.fake / f"hold-{what}").touch()
        return self

    def release(self, what: str) -> None:
        (self.fake / f"hold-{what}").unlink()

    def start(self) -> "Service":
        vllm = self._place / "vllm"
        vllm.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_engine.py")} "$@"\n')
        vllm.chmod(0o755)
        weights = self._place / "weights"
        if not weights.exists():
            write_folder(weights)
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "NIM_RECIPE": "demo",
            "NIM_MODEL_PATH": str(weights),
            "NIM_CACHE_PATH": str(self.cache),
            "NIMCTL_STATE_DIR": str(self.state),
            "NIM_SERVER_HOST": "127.0.0.1",
            "NIM_SERVER_PORT": str(self.port),
            "NIM_ENGINE_EXECUTABLE": str(vllm),
            "NIMCTL_ENGINE_DEVICE": "cpu",
            "FAKE_ENGINE": str(self.fake),
            **self._environ,
        }
        with (self._place / "out").open("wb") as out, (self._place / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "entrypoint", *self._arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._place,
            )
        return self

    @property
    def out(self) -> str:
        return (self._place / "out").read_text()

    @property
    def err(self) -> str:
        return (self._place / "err").read_text()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response | None:
        """The answer, or None when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, raw, headers or {})
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def get(self, path: str) -> Response | None:
        return self.ask("GET", path)

    def status(self, path: str) -> int | None:
        answer = self.get(path)
        return answer.status if answer else None

    def chat(self, **more: Any) -> Response | None:
        document = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], **more}
        return self.ask("POST", "/v1/chat/completions", document)

    def startup(self) -> dict[str, Any]:
        """The report, from its file: nginx may not be there yet, or no more."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.state / "public/startup.json").read_text()))
        return {}

    def wait_live(self) -> "Service":
        until(lambda: self.ended() or self.status("/v1/health/live") == 200)
        return self.alive()

    def wait_ready(self) -> "Service":
        until(lambda: self.ended() or self.status("/v1/health/ready") == 200)
        return self.alive()

    def wait_stage(self, name: str) -> "Service":
        until(lambda: self.ended() or self.startup().get("stage") == name)
        return self.alive()

    def wait_asked(self, count: int) -> "Service":
        until(lambda: len(self.asked()) >= count)
        return self

    def asked(self) -> list[dict[str, Any]]:
        """What the engine was asked to complete."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.fake / "asked").read_text().splitlines()]
        return []

    def engine(self) -> dict[str, Any]:
        """argv, environ and pid of the engine, once it runs."""
        return dict(until(self._engine))

    def _engine(self) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            return dict(json.loads((self.fake / "started").read_text()))
        return None

    def nginx(self) -> int:
        """The process id of nginx's master."""
        return int((self.state / "nginx.pid").read_text())

    def alive(self) -> "Service":
        assert not self.ended(), f"ended with {self.process and self.process.returncode}: {self.err}\n{self.out}"
        return self

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def signal(self, number: int) -> "Service":
        assert self.process is not None
        self.process.send_signal(number)
        return self

    def code(self) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def failure(self) -> dict[str, Any]:
        """The error of a server that failed: the same in the report, in the crash record and on the last line."""
        last = json.loads(self.out.splitlines()[-1])
        assert last["event"] == "failed"
        report, crash = self.startup(), json.loads((self.state / "crash.json").read_text())
        assert report["state"] == "failed"
        assert report["error"]["id"] == crash["error"]["id"] == last["error"]["id"]
        assert f"error[{last['error']['id']}]" in self.err
        assert not (self.state / "public/ready").exists()
        return dict(crash)

    def clean_up(self) -> None:
        if self.process is None:
            return
        left = descendants(self.process.pid)
        if not self.ended():
            self.process.kill()
            self.process.wait()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def service(**kwargs: Any) -> Iterator[Service]:
    """A service in a short folder of its own (Unix socket paths are short), gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="nimctl-entry-"))
    one = Service(place, **kwargs)
    try:
        yield one
    finally:
        one.clean_up()
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def group(count: int = 2, **environ: str) -> Iterator[list[Service]]:
    """So many nodes of one engine on the loopback, node 0 first; none of them started."""
    port = free_port_pair()
    with ExitStack() as stack:
        nodes = {"NIM_NUM_COMPUTE_NODES": str(count), "NIM_LEADER_ADDRESS": "127.0.0.1", "NIM_LEADER_PORT": str(port)}
        yield [stack.enter_context(service(**nodes, NIM_NODE_RANK=str(rank), **environ)) for rank in range(count)]


def free_port_pair() -> int:
    """A port that nobody uses now, and nobody uses the next one either."""
    for _ in range(100):
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two ports are free")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def exists(pid: int) -> bool:
    """True while there is such a process that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

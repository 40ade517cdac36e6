"""Fetches in processes of their own: to be killed, stopped, robbed of their locks, or run as another user.

    with Fetchers() as fetchers:
        child = fetchers.start(cache, checkpoint, settings={"writers.BEAT": 0.05})
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait().code == -signal.SIGKILL

The processes are forks of one that has imported everything, so a start takes milliseconds. It runs under
`interposed.c`, which ends a process at a chosen filesystem call, takes away the meaning of its locks or its syncs, or
writes down what it does.
"""

import codecs
import ctypes
import functools
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from nimctl.core import fetch
from nimctl.core.cache import CachePaths, Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http, store
from nimctl.core.fetch.manifest import File, Manifest, from_json, revision_of
from nimctl.core.fetch.protocol import RangeStream, Source
from nimctl.core.fetch.retry import Patience, Stop
from nimctl.core.fetch.transfer import limit, run

KINDS = ("create", "write", "sync", "rename", "symlink", "unlink", "truncate", "allocate", "mkdir", "rmdir", "chmod")
ROOT = Path(__file__).parents[2]
# A heart that beats fast, so that death is seen in a second; still ten beats long, as in the product.
QUICK = {"writers.BEAT": 0.1, "writers._STILL": 1.0, "writers._POLL": 0.02, "transfer.run._SYNC": 0.1}


@dataclass
class WebSource:
    """A checkpoint on a web server that is described by its manifest; `urls` by path."""

    repo: str
    manifest: Manifest
    urls: Mapping[str, str]
    part: Part = "huggingface"
    in_place: None = None
    refs: tuple[str, ...] = ("main",)
    client: http.Client = field(default_factory=lambda: http.Client(timeouts=http.Timeouts(5, 60)))
    targets: dict[str, http.Target] = field(default_factory=dict)

    def resolve(self) -> Manifest:
        return self.manifest

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        target = self.targets.setdefault(file.path, http.Target(self.urls[file.path], size=file.size))
        return self.client.open_range(target, start, stop)


@dataclass(frozen=True)
class Checkpoint:
    """What a fetcher is to fetch."""

    manifest: Manifest
    urls: Mapping[str, str]
    repo: str = "test/web"

    @property
    def source(self) -> WebSource:
        return WebSource(self.repo, self.manifest, self.urls)


def checkpoint(urls: Mapping[str, str], files: tuple[File, ...]) -> Checkpoint:
    return Checkpoint(Manifest("https://hub.test/web", revision_of(files), files), urls)


@dataclass(frozen=True)
class Kill:
    """Die at the `at`-th filesystem call of `kind` in the cache; `torn`: in the middle of it, where it is a write."""

    kind: str
    at: int
    torn: bool = False


@dataclass(frozen=True)
class Ended:
    """How a fetcher ended: exit code or minus the signal; the error's document; filesystem calls by kind."""

    code: int
    error: dict[str, Any] | None = None
    crash: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    peak: int = 0  # KiB of resident memory

    @property
    def error_id(self) -> str | None:
        return str(self.error["id"]) if self.error else None


class Child:
    """One fetching process."""

    def __init__(self, fetchers: "Fetchers", pid: int, answer: Path) -> None:
        self.pid, self._fetchers, self._answer = pid, fetchers, answer
        self._handle = os.pidfd_open(pid)
        self._ended: Ended | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self._handle, number)

    def runs(self) -> bool:
        return not select.select([self._handle], [], [], 0)[0]

    def wait(self, seconds: float = 60) -> Ended:
        """Its end. AssertionError when it does not come."""
        if self._ended is None:
            if not select.select([self._handle], [], [], seconds)[0]:
                raise AssertionError(f"the fetcher {self.pid} has not ended after {seconds} seconds")
            code = self._fetchers.ask({"reap": self.pid})["code"]
            os.close(self._handle)
            told = json.loads(self._answer.read_text()) if self._answer.exists() else {}
            self._ended = Ended(code, **told)
        return self._ended


class Fetchers:
    """The process that all fetchers are forks of."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nimctl-fetchers-"))
        self._folder.chmod(0o777)
        library = build(self._folder)
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lib.fetcher"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        self._children: list[Child] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            if child._ended is None:
                child.kill()
                child.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        shutil.rmtree(self._folder)

    def start(
        self,
        cache: Path,
        wanted: Checkpoint | None,
        *,
        settings: Mapping[str, float | str] = QUICK,
        kill: Kill | None = None,
        locks: bool = True,
        uid: int | None = None,
        umask: int = 0o002,
        attempts: int = 4,
        record: Path | None = None,
        unsynced: tuple[str, ...] = (),
        uri: str | None = None,
        environment: Mapping[str, str] | None = None,
        connections: int | None = None,
    ) -> Child:
        """Begin to fetch `wanted`, or what `uri` names in `environment`.

        `settings` are constants of `nimctl.core.fetch` by module and name. `record` takes the order of what is done to
        the cache, see `interposed.c`. The functions that `unsynced` names (`module:name`) force nothing to the disk.
        It begins with so many `connections`.
        """
        answer = self._folder / f"{len(self._children)}.json"
        order = {
            "cache": str(cache), "settings": dict(settings), "kill": kill and asdict(kill), "locks": locks, "uid": uid,
            "umask": umask, "attempts": attempts, "answer": str(answer), "record": record and str(record),
            "unsynced": unsynced, "uri": uri, "environment": dict(environment or {}),
            "connections": connections,
        }  # fmt: skip
        if wanted is not None:
            order |= {"manifest": wanted.manifest.to_json(), "urls": dict(wanted.urls), "repo": wanted.repo}
        child = Child(self, self.ask({"start": order})["pid"], answer)
        self._children.append(child)
        return child

    def run(self, cache: Path, wanted: Checkpoint | None, **how: Any) -> Ended:
        """Fetch to the end."""
        return self.start(cache, wanted, **how).wait()

    def ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def build(folder: Path) -> Path:
    """The compiled `interposed.c`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed")
    library = folder / "interposed.so"
    source = Path(__file__).with_name("interposed.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def main() -> None:
    for name in ("ascii", "idna", "latin-1"):  # whoever acts as another user may not read this Python's folders
        codecs.lookup(name)
    for line in sys.stdin:
        question = json.loads(line)
        if "reap" in question:
            _, status = os.waitpid(question["reap"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": _forked(question["start"])}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _forked(order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code, told = _fetch(order)
        told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fresh = Path(order["answer"] + ".fresh")
        fresh.write_text(json.dumps(told))
        fresh.replace(order["answer"])
    finally:
        os._exit(code)


def _fetch(order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    for name, value in order["settings"].items():
        module, _, constant = name.rpartition(".")
        place = importlib.import_module(f"nimctl.core.fetch.{module}")
        setattr(place, constant, Path(value) if isinstance(value, str) else value)
    os.environ.update(order["environment"])
    if order["connections"]:
        transfer: Any = run
        transfer.Limit = functools.partial(limit.Limit, value=order["connections"])
    if order["uid"] is not None:
        os.setgroups([])
        os.setgid(0)
        os.setuid(order["uid"])
    os.umask(order["umask"])
    library = ctypes.CDLL(None)
    if not order["locks"]:
        library.interposed_no_locks()
    for name in order["unsynced"]:
        _take_syncs_from(name, library)
    kill = order["kill"] or {"kind": None, "at": 0, "torn": False}
    kind = KINDS.index(kill["kind"]) if kill["kind"] else -1
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    paths, patience = CachePaths(Path(order["cache"])), Patience(order["attempts"], 0.01, 0.1)
    library.interposed_arm(order["cache"].encode(), kind, ctypes.c_long(kill["at"]), int(kill["torn"]))
    if order["record"]:
        library.interposed_record(order["record"].encode())
    told: dict[str, Any] = {}
    code = 0
    try:
        source = _source(order, paths)
        store.ensure(source, source.resolve(), paths, lambda _: None, patience=patience, stop=stop)
    except NimctlError as error:
        code, told["error"] = error.exit_code, error.to_json()
    except BaseException as error:
        code, told["crash"] = 99, "".join(traceback.format_exception(error))
    told["counts"] = dict(zip(KINDS, (ctypes.c_long * len(KINDS)).in_dll(library, "interposed_counts"), strict=True))
    return code, told


def _source(order: dict[str, Any], paths: CachePaths) -> Source:
    if order["uri"] is None:
        return WebSource(order["repo"], from_json(order["manifest"]), order["urls"])
    return fetch.open_source(order["uri"], paths.root, access=fetch.from_environment(order["environment"]))


def _take_syncs_from(name: str, library: ctypes.CDLL) -> None:
    """Let a function or method of `nimctl.core.fetch` do all it does but force anything to the disk."""
    module, _, rest = name.partition(":")
    place: Any = importlib.import_module(f"nimctl.core.fetch.{module}")
    *outer, last = rest.split(".")
    for each in outer:
        place = getattr(place, each)
    real = getattr(place, last)

    def without_syncs(*values: Any, **named: Any) -> Any:
        library.interposed_no_syncs(1)
        try:
            return real(*values, **named)
        finally:
            library.interposed_no_syncs(0)

    setattr(place, last, without_syncs)


if __name__ == "__main__":
    main()

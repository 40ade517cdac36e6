"""Servers as processes of this host: started detached, found again by a folder each, stopped as a family.

$XDG_STATE_HOME/nimctl/runs/<name>/      0700
  run.json   what runs, written once it does      log   everything it prints
  state/     the server's own run-time files, among them public/startup.json
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nimctl
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret, redact
from nimctl.launch import process_store as store
from nimctl.launch import procfs
from nimctl.launch import secrets as staging
from nimctl.launch.asked import looks_secret
from nimctl.launch.model import LaunchPlan
from nimctl.launch.process_store import Record
from nimctl.launch.procfs import Identity
from nimctl.launch.runtime import ContainerState, RunHandle, check_secrets, name_taken, port_taken
from nimctl.launch.show import process_command

# From a plan and the run's own folder to the argv and the variables to add.
Command = Callable[[LaunchPlan, Path], tuple[tuple[str, ...], dict[str, str | Secret]]]


@dataclass(frozen=True)
class ProcessRuntime:
    """The `Runtime` of this host's own processes, for the user that `environment` belongs to."""

    # A child inherits its parent's environment; that is why this one module reads it where none is given.
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    command: Command = field(default=process_command, repr=False, compare=False)
    _children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where the runs are."""
        home = self.environment.get("XDG_STATE_HOME", "")
        base = (
            Path(home) if home.startswith("/") else Path(self.environment.get("HOME") or Path.home()) / ".local/state"
        )
        return base / "nimctl" / "runs"

    def start(self, plan: LaunchPlan, secrets: Mapping[str, Secret]) -> RunHandle:
        """Start the server in a session of its own. A dead run of the same name is replaced, and that is noted.

        Raises `name-in-use`, `port-in-use`, `key-missing`, `disk-full`, `config-invalid` (the folder), and
        `engine-missing` when this Python cannot start at all.
        """
        check_secrets(plan, secrets)
        with store.starting(self.folder, plan.name):
            notes = self._make_way(plan.name)
            _check_port(plan.port.host_ip, plan.port.host)
            folder = self.folder / plan.name
            try:
                store.make_folder(folder)
                with staging.keys_for(plan, secrets, f"process {self.folder}", self._names) as keys:
                    return self._spawn(plan, folder, keys, notes)
            except BaseException:  # Ctrl-C too: nothing half-made may stay
                self._sweep(plan.name, None)
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def _spawn(self, plan: LaunchPlan, folder: Path, keys: Path | None, notes: tuple[str, ...]) -> RunHandle:
        argv, added = self.command(plan, folder / "state")
        environment = {n: v for n, v in self.environment.items() if not n.startswith("NIM_") and not looks_secret(n, v)}
        environment |= {n: v.reveal() if isinstance(v, Secret) else v for n, v in added.items()}
        with (folder / "log").open("wb") as log:
            try:
                child = subprocess.Popen(
                    argv,
                    env=environment,
                    # `-m` looks here first: the folder that holds our packages, and never the user's own.
                    cwd=Path(nimctl.__file__).parent.parent,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise NimctlError(
                    "engine-missing",
                    f"{argv[0]} cannot be started",
                    cause=str(error),
                    fix="Install nimctl into a Python environment that works: `python -m venv`, `pip install nimctl`.",
                ) from error
        self._children[plan.name] = child
        identity = procfs.identify(child.pid)
        assert identity is not None  # our child stays in the table until we reap it
        run = RunHandle(
            name=plan.name,
            runtime="process",
            id=str(child.pid),
            kind=plan.kind,
            recipe=plan.recipe or "",
            host=plan.port.host_ip,
            port=plan.port.host,
            served_names=tuple(filter(None, plan.labels.get("io.nimctl.served", "").split(","))),
            layout=plan.layout.name if plan.layout else None,
            stop_timeout=plan.stop_timeout,
            notes=notes,
            cache=plan.labels.get("io.nimctl.cache"),
            weights=plan.labels.get("io.nimctl.weights"),
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        store.write(self.folder, Record(run, identity, argv, now, str(keys) if keys else None))
        return run

    def _make_way(self, name: str) -> tuple[str, ...]:
        record = store.read(self.folder, name)
        if record is None:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            return ()
        if procfs.is_alive(record.process):
            raise name_taken(name, f"the run {name} is running (process {record.process.pid})")
        self._forget(name, record)
        return (f"replaced: The dead run {name} was removed to make way.",)

    def _names(self) -> set[str]:
        """The names of all runs, also of those that are about to start or whose record cannot be read."""
        return {path.name for path in self.folder.iterdir() if path.is_dir()}

    def list_runs(self) -> tuple[RunHandle, ...]:
        """The runs of this user, alive or dead, sorted by name."""
        return tuple(record.run for record in store.read_all(self.folder))

    def find(self, name: str) -> RunHandle | None:
        """The run of this name."""
        record = store.read(self.folder, name)
        return record.run if record else None

    def state(self, run: RunHandle) -> ContainerState:
        """How the process is. Its exit code is known to the command that started it, and from its own last report."""
        record = store.read(self.folder, run.name)
        if record is None or str(record.process.pid) != run.id:
            return ContainerState("gone")
        child = self._children.get(run.name)
        code = child.poll() if child and child.pid == record.process.pid else None
        if procfs.is_alive(record.process):
            return ContainerState("running", started_at=record.started_at)
        if code is not None:
            code = 128 - code if code < 0 else code  # as a shell and docker say it: 137 for SIGKILL
        else:
            code = ((self.startup_record(run) or {}).get("error") or {}).get("exit_code")
        return ContainerState("exited", exit_code=code, started_at=record.started_at)

    def logs(self, run: RunHandle, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The log by lines, keys masked; with `follow` until the process has ended."""
        try:
            file = (self.folder / run.name / "log").open("rb")
        except FileNotFoundError:
            return
        with file:
            *lines, rest = file.read().split(b"\n")
            if rest and not follow:
                lines, rest = [*lines, rest], b""
            for line in lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]:
                yield _text(line)
            while follow:
                alive = self.state(run).alive  # asked before reading, so that the last words are not lost
                *lines, rest = (rest + file.read()).split(b"\n")
                for line in lines:
                    yield _text(line)
                if not alive:
                    break
                time.sleep(0.1)
            if rest:
                yield _text(rest)

    def startup_record(self, run: RunHandle) -> Mapping[str, Any] | None:
        """The last `startup.json` that the server wrote."""
        try:
            record = json.loads((self.folder / run.name / "state/public/startup.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def stop(self, run: RunHandle, *, timeout: int | None = None) -> int | None:
        """SIGTERM to the server, which drains; SIGKILL to its whole family when the time is over; then remove the run.

        Raises `engine-stalled` when a process survives even SIGKILL, as one that hangs in a driver does.
        """
        record = store.read(self.folder, run.name)
        if record is None or str(record.process.pid) != run.id:
            return None  # it is gone, or another run has its name now
        if procfs.is_alive(record.process):
            everyone = procfs.family(record.process)
            procfs.send(record.process, signal.SIGTERM)
            self._wait(run.name, (record.process,), record.run.stop_timeout if timeout is None else timeout)
            survivors = {*everyone, *procfs.family(record.process)}
            for process in survivors:
                procfs.send(process, signal.SIGKILL)
            if not self._wait(run.name, survivors, 10):
                raise NimctlError(
                    "engine-stalled",
                    f"processes of {run.name} cannot be killed",
                    cause="they hang in the kernel, most often in the GPU driver",
                    fix="Look at `dmesg` for NVRM and Xid lines; the GPU may need a reset.",
                    evidence=[f"process {p.pid}" for p in survivors if procfs.is_alive(p)],
                )
        self._sweep(run.name, record)
        code = self.state(run).exit_code
        self._forget(run.name, record)
        return code

    def _wait(self, name: str, processes: Collection[Identity], seconds: float) -> bool:
        """Wait for the end of processes; a child of this very process must be reaped to be seen as ended."""
        done = procfs.wait_until_dead(processes, seconds)
        if child := self._children.get(name):
            child.poll()
        return done

    def _sweep(self, name: str, record: Record | None) -> None:
        """Kill what a dead server left behind; found by the state folder in its environment."""
        left = procfs.marked(f"NIMCTL_STATE_DIR={self.folder / name / 'state'}")
        if record is not None and procfs.is_alive(record.process):
            left = (*left, *procfs.family(record.process))
        for process in left:
            procfs.send(process, signal.SIGKILL)
        procfs.wait_until_dead(left, 10)
        if child := self._children.get(name):
            child.poll()

    def _forget(self, name: str, record: Record) -> None:
        if record.secrets:
            staging.remove(Path(record.secrets))
        shutil.rmtree(self.folder / name, ignore_errors=True)


def _check_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on; nginx, too, asks with SO_REUSEADDR."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise port_taken(host, port, str(error)) from error


def _text(line: bytes) -> str:
    return redact(line.decode(errors="replace").rstrip("\r"))

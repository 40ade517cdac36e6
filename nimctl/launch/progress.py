"""Watching a start: the server's own stages and its container side by side, until it is ready, dead or stuck.

Progress ends the waiting, not a clock: a start may take an hour as long as something moves. A container that dies ends
it at once, with the server's own error where it left one.
"""

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from nimctl.core.diagnosis import Death, Exit, recognised
from nimctl.core.errors import NimctlError
from nimctl.core.stages import Stage, StartupReport, report_from_json
from nimctl.launch.loglines import error_from_json, recorded_error, relevant
from nimctl.launch.runtime import ContainerState, RunHandle, Runtime


@dataclass(frozen=True)
class Policy:
    """Times in seconds. `warn_after` and `stall_after` count from the last change of stage, bytes or log.

    A load of 600 GB from a slow disk can be silent for minutes, so the stall is long; the server's own limit is shorter
    where it knows more. `deadline` bounds the whole; None means no bound.
    """

    poll: float = 0.25
    log_every: float = 2.0
    probe_timeout: float = 1.0
    daemon_grace: float = 15.0
    warn_after: float = 60.0
    stall_after: float = 1800.0
    deadline: float | None = None


DEFAULT_POLICY = Policy()


@dataclass(frozen=True)
class Answer:
    """What the server said: whether it is ready, and its stages where it tells them (NVIDIA's images do not)."""

    ready: bool = False
    report: StartupReport | None = None


def ask(run: RunHandle, timeout: float = 1.0) -> Answer:
    """One look at the server's health. Never raises; takes at most a few times `timeout` seconds."""
    status, body = _get(run, "/v1/health/startup", timeout)
    if status == 200:
        try:
            report = report_from_json(json.loads(body))
            return Answer(report.state == "ready", report)
        except ValueError:
            return Answer()
    if status is None or run.kind == "ours":
        return Answer()
    return Answer(_get(run, "/v1/health/ready", timeout)[0] == 200)


def document(run: RunHandle, path: str, timeout: float = 5.0) -> tuple[int | None, bytes]:
    """Status and body of one of the server's documents; the status is None where nobody answers. Never raises."""
    return _get(run, path, timeout)


def _get(run: RunHandle, path: str, timeout: float) -> tuple[int | None, bytes]:
    """Status and body of a health route; over TLS where the port speaks nothing else (`NIM_SSL_MODE`).

    The certificate is not verified: no name leads to this address, and nothing is sent or believed but health. Our
    front shows health without a client certificate as well.
    """
    plain = _answer(http.client.HTTPConnection(run.reachable_host, run.port, timeout=timeout), path)
    if plain[0] != 400:
        return plain
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    tls = http.client.HTTPSConnection(run.reachable_host, run.port, timeout=timeout, context=unverified)
    status, body = _answer(tls, path)
    return plain if status is None else (status, body)


def _answer(connection: http.client.HTTPConnection, path: str) -> tuple[int | None, bytes]:
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(1 << 20)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def follow(
    runtime: Runtime,
    run: RunHandle,
    *,
    on_update: Callable[[StartupReport], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    policy: Policy = DEFAULT_POLICY,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    health: Callable[[RunHandle, float], Answer] = ask,
) -> StartupReport:
    """Wait until the run is ready and return its last report; `on_update` sees each look, `on_note` warnings.

    Raises the server's own error, `container-died` with the lines that say why, `engine-stalled` after
    `policy.stall_after` without any change, `not-ready` at the deadline, and a `docker-*` error when the daemon is
    silent for `policy.daemon_grace`. KeyboardInterrupt passes through; the run goes on.
    """
    watch = _Watch(runtime, run, policy, clock, on_note)
    while True:
        # The state first: a server that was ready before it died must not count.
        state = watch.look_at_container()
        answer = health(run, policy.probe_timeout)
        if state is not None and not state.alive:
            raise death(runtime, run, state, watch.report)
        report = watch.see(answer)
        on_update(report)
        if report.state == "failed":
            raise error_from_json(report.error) or death(runtime, run, ContainerState("running"), report)
        if answer.ready:
            return report
        watch.check_time()
        sleep(policy.poll)


class _Watch:
    """What `follow` remembers between two looks."""

    def __init__(
        self,
        runtime: Runtime,
        run: RunHandle,
        policy: Policy,
        clock: Callable[[], float],
        on_note: Callable[[str], None],
    ) -> None:
        self._runtime, self._run, self._policy, self._clock, self._on_note = runtime, run, policy, clock, on_note
        self._began = self._changed = self._answered = clock()
        self._log_read = float("-inf")
        self._warn_at = policy.warn_after
        self._seen: object = None
        self.line = ""
        self.report: StartupReport | None = None

    def look_at_container(self) -> ContainerState | None:
        """The container's state and, from time to time, its last line; None while the daemon is silent for a moment."""
        try:
            state = self._runtime.state(self._run)
            if self._clock() - self._log_read >= self._policy.log_every:
                self._log_read = self._clock()
                self.line = _last_line(self._runtime, self._run) or self.line
        except NimctlError:
            if self._clock() - self._answered >= self._policy.daemon_grace:
                raise
            return None
        self._answered = self._clock()
        return state

    def see(self, answer: Answer) -> StartupReport:
        """Remember the answer; the report to show, made up from the log where the server tells no stages."""
        if answer.report is not None:
            self.report = answer.report
        report = self.report or _made_up(self._run, answer.ready, self._clock() - self._began, self.line)
        seen = (self.line, report.state, *((s.name, s.state, s.bytes, s.detail) for s in report.stages))
        if seen != self._seen:
            self._seen, self._changed, self._warn_at = seen, self._clock(), self._policy.warn_after
        return report

    def check_time(self) -> None:
        """Warn, and at last give up, when nothing changes."""
        now, stage = self._clock(), self.report.current if self.report else None
        where = f"in stage {stage.name}" if stage else "before its first answer"
        quiet = now - self._changed
        if self._policy.deadline is not None and now - self._began >= self._policy.deadline:
            raise NimctlError(
                "not-ready",
                f"{self._run.name} was not ready in time",
                cause=f"after {self._policy.deadline:g} s it is {where}",
                fix=f"`nimctl status {self._run.name} --wait` goes on waiting.",
            )
        if quiet >= self._policy.stall_after:
            raise NimctlError(
                "engine-stalled",
                f"{self._run.name} made no progress for {quiet / 60:.0f} minutes",
                cause=f"it stopped {where}",
                fix=f"Look at `nimctl logs {self._run.name}`; `nimctl stop {self._run.name}` ends it, the cache stays.",
                evidence=relevant(_last_lines(self._runtime, self._run)),
            )
        if quiet >= self._warn_at:
            self._warn_at *= 2
            self._on_note(f"nothing has changed for {quiet:.0f} s {where}" + (f": {self.line}" if self.line else ""))


def look(runtime: Runtime, run: RunHandle, policy: Policy = DEFAULT_POLICY) -> StartupReport:
    """The start report of this moment. Raises the run's error when it is dead."""
    state = runtime.state(run)
    answer = ask(run, policy.probe_timeout)
    if not state.alive:
        raise death(runtime, run, state, answer.report)
    return answer.report or _made_up(run, answer.ready, None, _last_line(runtime, run))


def describe(run: RunHandle, state: ContainerState, policy: Policy = DEFAULT_POLICY) -> str:
    """The run's condition in a few words, for a table: `ready`, `starting: weights`, `exited (137)`."""
    if not state.alive:
        return state.status + (f" ({state.exit_code})" if state.exit_code is not None else "")
    if state.status != "running":
        return state.status
    answer = ask(run, policy.probe_timeout)
    if answer.report is None:
        return "ready" if answer.ready else "starting"
    stage = answer.report.current
    return answer.report.state + (f": {stage.name}" if stage and not answer.ready else "")


def _made_up(run: RunHandle, ready: bool, seconds: float | None, line: str) -> StartupReport:
    """A report for a server that tells none: NVIDIA's images, and ours before its front answers."""
    name = "engine" if run.kind == "nim" else "settings"
    stage = Stage(name, "done" if ready else "running", seconds=seconds, detail=line or None)
    return StartupReport("ready" if ready else "starting", (stage,), version="", layout=run.layout)


def _last_line(runtime: Runtime, run: RunHandle) -> str:
    """The last line of the log that is not blank, if there is one."""
    lines = [line.strip() for line in runtime.logs(run, tail=5) if line.strip()]
    return lines[-1] if lines else ""


def _last_lines(runtime: Runtime, run: RunHandle) -> list[str]:
    try:
        return list(runtime.logs(run, tail=400))
    except NimctlError:
        return []  # it is gone, or the daemon is: the death itself is still worth telling


def death(runtime: Runtime, run: RunHandle, state: ContainerState, report: StartupReport | None) -> NimctlError:
    """Why a run is dead: its own words if it left any, else its exit code and the lines that name a cause."""
    record = runtime.startup_record(run) or {}
    lines = _last_lines(runtime, run)
    own = error_from_json(report.error if report else None) or error_from_json(record.get("error"))
    if found := own or recorded_error(lines):
        return found
    serving = report is not None and report.state == "ready"
    if found := recognised(Death("engine", _exit(state.exit_code), tuple(lines), serving=serving)):
        return found  # an image that is not ours, or ours without time for a last word
    stage = report.current.name if report and report.current else None
    code = "" if state.exit_code is None else f" with exit code {state.exit_code}"
    what = "ended" if state.status != "gone" else "was removed by somebody"
    return NimctlError(
        "container-died",
        f"{run.name} {what}{code}" + (f" in stage {stage}" if stage else " before it was ready"),
        cause=_cause(state, run),
        fix=_fix(state, run),
        evidence=relevant(lines),
    )


def _exit(code: int | None) -> Exit:
    """What an exit code says as a shell tells it: 128 and the signal's number for a process that was killed."""
    return Exit(None, code - 128) if code is not None and code > 128 else Exit(code, None)


def _cause(state: ContainerState, run: RunHandle) -> str:
    what = "container" if run.runtime == "docker" else "process"
    if state.oom_killed:
        return "the kernel killed it: the host, or the limit of the container, is out of memory"
    if state.error:
        return state.error
    return {
        0: f"the {what} ended as if its work was done",
        126: "its command cannot be executed",
        127: "its command was not found",
        130: f"the {what} was stopped by SIGINT",
        137: f"the {what} was killed by SIGKILL: by somebody, or for want of memory",
        143: f"the {what} was stopped by SIGTERM",
    }.get(-1 if state.exit_code is None else state.exit_code, f"the {what} ended by itself; its last words follow")


def _fix(state: ContainerState, run: RunHandle) -> str:
    if state.oom_killed:
        return "Give the host more memory, or choose a smaller model or fewer GPUs."
    if state.status == "gone":
        return "Start it again with `nimctl run`."
    return f"Read the lines above, and the whole with `nimctl logs {run.name}`; `nimctl stop {run.name}` removes it."

"""One server from its first stage to its end: the start, the watch over it, the engine's restarts, the stop.

    settings -> front -> cache -> gpus -> profile -> weights -> engine -> warmup -> ready
                          ^                                                          |
                          +---- the engine is lost, and its budget allows a restart -+

The front keeps the port from the first tenths of a second to the end. The main thread waits for events; every start
runs beside it, so that a signal never waits. Only what nginx needs is imported at the top: `live` must be true within
0.3 s.
"""

import json
import os
import signal
import time
from typing import Any

from entrypoint.engine.nodes import role_of
from entrypoint.front import Front, check_port, command, find_nginx, front_of, prepare
from entrypoint.group import Over
from entrypoint.group.membership import Membership
from entrypoint.observability import timeline
from entrypoint.observability.failure import bug, tell
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.processes.child import Child
from entrypoint.processes.guardian import Guardian
from entrypoint.processes.oom import oom_kills
from entrypoint.processes.restarts import Budget
from entrypoint.processes.supervisor import Died, Event, Finished, Moot, Sick, Stop, Supervisor
from entrypoint.run import Run
from entrypoint.settings import Settings
from entrypoint.state import State, write_atomically
from entrypoint.watch import Watch
from nimctl.core.errors import NimctlError

# How long an engine that fails a request may take to die of it: its death tells the cause, the failed request does not.
_SECONDS_TO_DIE = 5.0
# How long a download may take to give up its place in the cache; without that, the next one has to claim it.
_SECONDS_TO_LEAVE = 0.5
# How long a start whose engine is gone may take to notice it.
_SECONDS_TO_NOTICE = 15.0
_TICK = 1.0


class Server:
    """Owns the run and decides what an event means for it."""

    def __init__(self, settings: Settings, state: State, report: Report, journal: Journal) -> None:
        self.settings = settings
        self.state = state
        self.report = report
        self.journal = journal
        self.supervisor = Supervisor()
        self.members = Membership(role_of(settings, os.environ), journal, report)
        self.run = Run(settings, os.environ, state, report, journal, self.supervisor, self.members)
        self._watch = Watch(self.run)
        self._guardian = Guardian()
        # A rank cannot come back to the others: they end, and start, all together.
        restarts = settings.engine_restarts if self.members.role.alone else 0
        self._budget = Budget(restarts, settings.engine_restart_window)
        self._front: Front | None = None
        self._served = False  # it was ready once
        self._buried: set[int] = set()  # engines whose end has been dealt with, before the kernel told of it

    def serve(self) -> int:
        """Start, then wait for the end. The exit code of the process."""
        self.supervisor.run_start(self._first_start)
        try:
            while True:
                event = self.supervisor.next_event(_TICK)
                code = self._answer(event) if event is not None else self._tick()
                if code is not None:
                    return code
        finally:
            self.members.leave()
            self.supervisor.kill_all()  # nothing is left behind, whatever happened above

    def _first_start(self) -> None:
        with self.report.stage("front"):
            self._front = self._raise_front()
        self._start()

    def _raise_front(self) -> Front:
        front = front_of(self.settings, self.state, os.urandom(32).hex(), api=self.members.role.leads)
        check_tls = None
        if front.tls is not None:
            from entrypoint.front import tls  # noqa: PLC0415 (it needs `ssl`)

            check_tls = tls.check
            check_tls(front.tls)
        check_port(front)
        prepare(front, self.state, cpus=os.cpu_count() or 1, log_level=self.settings.log_level)
        argv = command(find_nginx(os.environ.get("PATH")), self.state)
        environ = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        child = self.supervisor.spawn(
            "front", argv, env=environ, cwd=self.state.root, on_line=self.journal.reader("front")
        )
        self._guardian.guard(child.pid)
        from entrypoint.stages.front import await_front, version  # noqa: PLC0415 (while nginx starts)

        await_front(front, child)
        self.journal.info("front", f"listening on {front.host} port {front.port}")
        document = version()
        write_atomically(self.state.public / "version.json", json.dumps(document))
        self._watch.front_is_up(front, child, check_tls)
        return front

    def _start(self) -> None:
        from entrypoint import starting  # noqa: PLC0415 (nothing of it is needed for `live`)

        assert self._front is not None
        number = self.supervisor.starts
        serving = starting.bring_up(self.run, self._front, self._guard_engine)
        self.report.ready()
        if serving is not None:
            canary = starting.canary_of(
                self.run,
                self._front,
                serving,
                on_sick=lambda error: self.supervisor.post(Sick(error, number)),
                on_flight=lambda well: self._watch.metrics.canary("ok" if well else "failed"),
            )
            self._watch.fly(canary)
            canary.start()
        elapsed, told = self.report.elapsed, timeline.in_words(self.report.current)
        self._watch.metrics.first_ready(elapsed)
        name = serving.name if serving is not None else self.members.role.name
        self.journal.event("ready", "ready", f"{name} after {elapsed:.1f} s: {told}", seconds=round(elapsed, 3))

    def _guard_engine(self, child: Child) -> None:
        self._guardian.guard(child.pid)

    def _start_again(self, pause: float) -> None:
        if self.supervisor.wait_closed(pause):
            raise Moot
        self._start()

    def _tick(self) -> int | None:
        engine = self.supervisor.find("engine")
        if not self._watch.look() or engine is None or engine.exit is not None:
            return None
        return self._engine_lost(self._cause_of(engine), engine)

    def _answer(self, event: Event) -> int | None:
        """What an event leads to: an exit code, or None where the server goes on."""
        if isinstance(event, (Stop, Over)):
            return self._stop(event) if isinstance(event, Stop) else self._group_over(event)
        if isinstance(event, Died):
            return self._died(event)
        if event.number != self.supervisor.starts or (isinstance(event, Finished) and isinstance(event.error, Moot)):
            return None  # of a start that was given up
        if isinstance(event, Sick):
            return self._engine_lost(event.error, self.supervisor.find("engine"))
        if event.error is not None:
            return self._start_failed(event)
        self._served = True
        self._watch.engine_serves(self.supervisor.find("engine"))
        return None

    def _stop(self, event: Stop) -> int:
        from entrypoint.processes import ending  # noqa: PLC0415

        self._watch.look_away()
        self.journal.info("stop", f"signal {event.signal}: stopping")
        ending.drain_and_stop(self.run)
        self._leave_in_order()
        self.journal.info("stop", "stopped")
        return 128 + event.signal

    def _group_over(self, event: Over) -> int:
        """Another node has ended, or was told to: so do we, for the same cause."""
        self.report.withdraw()
        if event.error is None:
            self.journal.info("group", event.told)
            return self._stop(Stop(signal.SIGTERM))
        return self._fail(event.error, None, of_group=True)

    def _leave_in_order(self) -> None:
        """Let a download, which knows that we stop, give up its place in the cache."""
        stage = self.report.current.current
        if stage is not None and stage.name in ("profile", "weights"):
            self.supervisor.await_start(_SECONDS_TO_LEAVE)

    def _start_failed(self, event: Finished) -> int | None:
        """A request that fails because the engine is dying is told as what it is: the engine's death."""
        error = event.error
        if isinstance(error, NimctlError) and error.id in ("warmup-failed", "front-died"):
            following = self._death_within(_SECONDS_TO_DIE)
            if following is not None:
                return self._answer(following)
        if not isinstance(error, NimctlError):
            return self._fail(bug(error), None)
        return self._engine_lost(error, self.supervisor.find("engine"), told_by_start=True)

    def _death_within(self, seconds: float) -> Event | None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            event = self.supervisor.next_event(remaining)
            if isinstance(event, (Died, Stop)):
                return event
        return None

    def _died(self, event: Died) -> int | None:
        child = event.child
        if child.pid in self._buried:
            self._buried.discard(child.pid)
            return None
        error = self._cause_of(child)
        if child.name == "engine":
            return self._engine_lost(error, child)
        return self._fail(error, child)

    def _cause_of(self, child: Child) -> NimctlError:
        from nimctl.core.diagnosis import Death, Exit, classify  # noqa: PLC0415

        serving = self.report.current.state == "ready"
        part = self._watch.first_lost if child.name == "engine" else None
        self.report.withdraw()
        if child.exit is not None:
            child.finish_output(0.5)
        lines = tuple(
            self.journal.tidy(line) for line in tuple(child.lines)
        )  # causes and evidence are shown to anybody
        kills = max(0, oom_kills() - self.supervisor.oom_kills_before)
        return classify(Death(child.name, child.exit or Exit(None, None), lines, kills, serving, part))

    def _engine_lost(self, error: NimctlError, child: Child | None, *, told_by_start: bool = False) -> int | None:
        """The engine is dead, sick, or did not come up again: start it anew where that may help, else end."""
        # The start that made it ready may not have come to its end yet.
        self._served = self._served or self.report.current.state == "ready"
        self.report.withdraw()
        self._watch.look_away()
        pause = self._budget.pause(error) if self._served else None
        if pause is None:
            return self._fail(error, None if told_by_start else child)
        from entrypoint.processes import crash  # noqa: PLC0415

        crash.write(self.state, self._crash(error, child))
        self.journal.error("engine", f"[{error.id}] {error.message}: {error.cause}")
        self.journal.warning("engine", f"starting it again in {pause:g} s ({self._budget.said()}); the port stays open")
        self.report.restarting(error.to_json())
        if child is not None and child.exit is None:
            self._buried.add(child.pid)
        front = self.supervisor.find("front")
        self.supervisor.kill_others([pid for pid in (front.pid if front else None, self._guardian.pid) if pid])
        if not self.supervisor.await_start(_SECONDS_TO_NOTICE):
            return self._fail(error, child)  # a start that hangs on something dead cannot be followed by another
        self.state.engine_socket.unlink(missing_ok=True)
        self.supervisor.oom_kills_before = oom_kills()
        self.supervisor.run_start(lambda: self._start_again(pause))
        return None

    def _fail(self, error: NimctlError, dead: Child | None, *, of_group: bool = False) -> int:
        self._watch.look_away()
        if not of_group:
            error = self.members.fail(error, tuple(dead.lines) if dead is not None else ())
        from entrypoint.processes import crash, ending  # noqa: PLC0415

        document = self._crash(error, dead)
        self.report.failed(document["error"])
        ending.stop_after_failure(self.supervisor)
        self.supervisor.await_start(_SECONDS_TO_LEAVE)  # so that the cause, which comes next, is the last line
        crash.write(self.state, document)
        tell(error, self.journal, crash.in_line(document))
        return error.exit_code

    def _crash(self, error: NimctlError, dead: Child | None) -> dict[str, Any]:
        from entrypoint.processes import crash  # noqa: PLC0415

        stage = self.report.current.current
        name = stage.name if stage else None
        return crash.record(error, dead, name, self.journal, restarts=self._budget.count, memories=crash.memory())

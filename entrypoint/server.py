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

from entrypoint.engine.nodes import role_of
from entrypoint.front import Front, check_port, command, find_nginx, front_of, prepare
from entrypoint.group import Over
from entrypoint.group.membership import Membership
from entrypoint.losses import Losses
from entrypoint.observability import timeline
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.processes.guardian import Guardian
from entrypoint.processes.supervisor import Died, Event, Finished, Moot, Sick, Stop, Supervisor
from entrypoint.run import Run
from entrypoint.settings import Settings
from entrypoint.state import State, write_atomically
from entrypoint.watch import Watch

# How long a download may take to give up its place in the cache; without that, the next one has to claim it.
_SECONDS_TO_LEAVE = 0.5
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
        self._losses = Losses(self.run, self._watch, self._guardian, self._start)
        self._front: Front | None = None

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

        await_front(front, child, self.journal.tidy)
        self.journal.info("front", f"listening on {front.host} port {front.port}")
        document = version()
        write_atomically(self.state.public / "version.json", json.dumps(document))
        self._watch.front_is_up(front, child, check_tls)
        return front

    def _start(self) -> None:
        from entrypoint import starting  # noqa: PLC0415 (nothing of it is needed for `live`)

        assert self._front is not None
        number = self.supervisor.starts
        serving = starting.bring_up(self.run, self._front, self._losses.spawned, self._watch.engine_serves)
        canary = None
        if serving is not None:
            canary = starting.canary_of(
                self.run,
                self._front,
                serving,
                on_sick=lambda error: self.supervisor.post(Sick(error, number)),
                on_flight=lambda well: self._watch.metrics.canary("ok" if well else "failed"),
            )
            self._watch.fly(canary)  # before ready: whoever loses the engine from then on can stop it
        self.report.ready()
        if canary is not None:
            canary.start()
        elapsed, told = self.report.elapsed, timeline.in_words(self.report.current)
        self._watch.metrics.first_ready(elapsed)
        name = serving.name if serving is not None else self.members.role.name
        self.journal.event("ready", "ready", f"{name} after {elapsed:.1f} s: {told}", seconds=round(elapsed, 3))

    def _tick(self) -> int | None:
        engine = self._losses.engine
        if not self._watch.look() or engine is None or engine.exit is not None:
            return None
        return self._losses.engine_died(engine)

    def _answer(self, event: Event) -> int | None:
        """What an event leads to: an exit code, or None where the server goes on."""
        if isinstance(event, (Stop, Over)):
            return self._stop(event) if isinstance(event, Stop) else self._group_over(event)
        if isinstance(event, Died):
            return self._losses.died(event.child)
        if event.number != self.supervisor.starts or (isinstance(event, Finished) and isinstance(event.error, Moot)):
            return None  # of a start that was given up
        if isinstance(event, Sick):
            return self._losses.engine_lost(event.error, self._losses.engine)
        if event.error is not None:
            return self._losses.start_failed(event)
        self._watch.look()  # what is told of a ready server is there at once
        return None

    def _stop(self, event: Stop) -> int:
        from entrypoint.processes import ending  # noqa: PLC0415

        self._watch.look_away()
        self.journal.info("stop", f"signal {event.signal}: stopping")
        ending.drain_and_stop(self.run, miscounted=self._watch.lost_a_worker)
        self._leave_in_order()
        self.journal.info("stop", "stopped")
        return 128 + event.signal

    def _group_over(self, event: Over) -> int:
        """Another node has ended, or was told to: so do we, for the same cause."""
        self.report.withdraw()
        if event.error is None:
            self.journal.info("group", event.told)
            return self._stop(Stop(signal.SIGTERM))
        return self._losses.fail(event.error, None, of_group=True)

    def _leave_in_order(self) -> None:
        """Let a download, which knows that we stop, give up its place in the cache."""
        stage = self.report.current.current
        if stage is not None and stage.name in ("profile", "weights"):
            self.supervisor.await_start(_SECONDS_TO_LEAVE)

"""What the loss of a child means: the end of the server with its cause, or another start of the engine alone."""

from collections.abc import Callable
from typing import Any

from entrypoint.observability.failure import bug, tell
from entrypoint.processes.child import Child
from entrypoint.processes.guardian import Guardian
from entrypoint.processes.oom import oom_kills
from entrypoint.processes.restarts import Budget
from entrypoint.processes.supervisor import Finished, Moot
from entrypoint.run import Run
from entrypoint.watch import Watch
from nimctl.core.errors import NimctlError

# How long an engine that fails a request may take to die of it: its death tells the cause, the failed request does not.
_SECONDS_TO_DIE = 5.0
# How long a download may take to give up its place in the cache; without that, the next one has to claim it.
_SECONDS_TO_LEAVE = 0.5
# How long a start whose engine is gone may take to notice it.
_SECONDS_TO_NOTICE = 15.0


class Losses:
    """Main thread only, but for `spawned`. Each answer is an exit code, or None where the server goes on."""

    def __init__(self, run: Run, watch: Watch, guardian: Guardian, start: Callable[[], None]) -> None:
        self._run = run
        self._watch = watch
        self._guardian = guardian
        self._start = start
        # A rank cannot come back to the others: they end, and start, all together.
        restarts = run.settings.engine_restarts if run.members.role.alone else 0
        self._budget = Budget(restarts, run.settings.engine_restart_window)
        self._engine: Child | None = None
        self._over: set[Child] = set()  # engines that were given up before the kernel told of their end
        self._served = False  # it was ready once

    def spawned(self, engine: Child) -> None:
        """This engine is the one that counts from here on. The end of one that dies at once may be told before this."""
        self._engine = engine
        self._guardian.guard(engine.pid)

    @property
    def engine(self) -> Child | None:
        """The engine whose loss has not been dealt with."""
        return self._engine

    def died(self, child: Child) -> int | None:
        """A child has ended."""
        if child.name == "front":
            return self.fail(self._cause_of(child), child)
        if child in self._over:
            self._over.discard(child)
            return None
        self._engine = None
        return self.engine_died(child)

    def engine_died(self, child: Child) -> int | None:
        """The engine has ended, or its first process has."""
        return self.engine_lost(self._cause_of(child), child)

    def start_failed(self, event: Finished) -> int | None:
        """A request that fails because the engine is dying is told as what it is: the engine's death."""
        error = event.error
        if isinstance(error, NimctlError) and error.id in ("warmup-failed", "front-died"):
            front = self._run.supervisor.find("front")
            candidates = [child for child in (front, self._engine) if child is not None]
            dead = self._run.supervisor.await_death(candidates, _SECONDS_TO_DIE)
            if isinstance(dead, Child):
                return self.died(dead)
            if dead is not None:
                return None  # somebody stops us: that event comes next, and says how it ends
        if not isinstance(error, NimctlError):
            return self.fail(bug(error), None)
        return self.engine_lost(error, None)

    def engine_lost(self, error: NimctlError, dead: Child | None) -> int | None:
        """The engine is dead, sick, or did not come up again: start it anew where that may help, else end."""
        run = self._run
        # The start that made it ready may not have come to its end yet.
        self._served = self._served or run.report.current.state == "ready"
        run.report.withdraw()
        self._watch.look_away()
        if self._engine is not None:
            self._over.add(self._engine)
            self._engine = None
        pause = self._budget.pause(error) if self._served else None
        if pause is None:
            return self.fail(error, dead)
        from entrypoint.processes import crash  # noqa: PLC0415

        memories = crash.look_at_memory()
        run.journal.error("engine", f"[{error.id}] {error.message}: {error.cause}")
        run.journal.warning("engine", f"starting it again in {pause:g} s ({self._budget.said()}); the port stays open")
        document = self._crash(error, dead, memories)
        run.report.restarting(document["error"])
        crash.write(run.state, document)
        front = run.supervisor.find("front")
        kept = [pid for pid in (front.pid if front else None, self._guardian.pid) if pid]
        run.supervisor.kill_others(kept)
        if not run.supervisor.await_start(_SECONDS_TO_NOTICE):
            if run.supervisor.stop_is_wanted():
                return None
            return self.fail(error, dead)  # a start that hangs on something dead cannot be followed by another
        run.state.engine_socket.unlink(missing_ok=True)
        run.supervisor.oom_kills_before = oom_kills()
        run.supervisor.run_start(lambda: self._start_again(pause))
        return None

    def fail(self, error: NimctlError, dead: Child | None, *, of_group: bool = False) -> int:
        """End everything with this cause; in a group the other nodes hear of it, unless they told it."""
        from entrypoint.processes import crash, ending  # noqa: PLC0415

        run = self._run
        memories = crash.look_at_memory()
        self._watch.look_away()
        if not of_group:
            error = run.members.fail(error, tuple(dead.lines) if dead is not None else ())
        document = self._crash(error, dead, memories)
        run.report.failed(document["error"])
        ending.stop_after_failure(run.supervisor)
        run.supervisor.await_start(_SECONDS_TO_LEAVE)  # so that the cause, which comes next, is the last line
        crash.write(run.state, document)
        tell(error, run.journal, crash.in_line(document))
        return error.exit_code

    def _start_again(self, pause: float) -> None:
        if self._run.supervisor.wait_closed(pause):
            raise Moot
        self._start()

    def _cause_of(self, child: Child) -> NimctlError:
        from nimctl.core.diagnosis import Death, Exit, classify  # noqa: PLC0415

        run = self._run
        serving = run.report.current.state == "ready"
        part = self._watch.first_lost if child.name == "engine" else None
        run.report.withdraw()
        if child.exit is not None:
            child.finish_output(0.5)
        lines = tuple(run.journal.tidy(line) for line in tuple(child.lines))  # evidence is shown to anybody
        kills = max(0, oom_kills() - run.supervisor.oom_kills_before)
        return classify(Death(child.name, child.exit or Exit(None, None), lines, kills, serving, part))

    def _crash(self, error: NimctlError, dead: Child | None, memories: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from entrypoint.processes import crash  # noqa: PLC0415

        stage = self._run.report.current.current
        name = stage.name if stage else None
        return crash.record(error, dead, name, self._run.journal, restarts=self._budget.count, memories=memories())

"""What is looked after once a second while a server runs: the engine's processes, its health, keys, counts, metrics."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from entrypoint.front import Front, Tls
from entrypoint.front.counting import RequestCounts, reopen_logs
from entrypoint.front.renewal import Renewal
from entrypoint.observability.metrics import Metrics
from entrypoint.processes.child import Child, descendants
from entrypoint.processes.witness import Witness
from entrypoint.run import Run
from nimctl import __version__
from nimctl.core.errors import NimctlError

if TYPE_CHECKING:
    from entrypoint.health.canary import Canary


class Watch:
    """Begins with nothing to look after; the front and the engine are given to it as they come up."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._renewal: Renewal | None = None
        self._requests: RequestCounts | None = None
        self._witness: Witness | None = None
        self._canary: Canary | None = None
        self._front: Child | None = None
        self._workers: frozenset[int] = frozenset()
        self.lost_a_worker = False  # then nginx counts for ever what that worker had begun
        self.metrics = Metrics(run.state.metrics, {"version": __version__})

    @property
    def first_lost(self) -> str | None:
        """Which of the engine's processes went first, where one has."""
        return self._witness.first if self._witness is not None else None

    def front_is_up(self, front: Front, child: Child, check_tls: Callable[[Tls], None] | None) -> None:
        """From here on its keys and certificates are renewed, its requests counted, its workers watched."""
        self._front = child
        self._renewal = Renewal(front, self._run.state, child.pid, check_tls=check_tls)
        self._requests = RequestCounts(self._run.state.request_log, lambda: reopen_logs(child.pid))

    def engine_serves(self, engine: Child | None) -> None:
        """From here on its processes are counted."""
        self._witness = Witness(engine.pid) if engine is not None else None

    def fly(self, canary: "Canary") -> None:
        """From here on its answers are looked at; the one before ends."""
        if self._canary is not None:
            self._canary.stop()
        self._canary = canary

    def look_away(self) -> None:
        """The engine is nothing to look after any more."""
        self._witness = None
        if self._canary is not None:
            self._canary.stop()

    def look(self) -> bool:
        """Once a second: True once a process of the engine is lost, which `first_lost` names."""
        self._run.report.touch()
        self._renew()
        requests = self._requests.read() if self._requests is not None else None
        self.metrics.write(self._run.report.current, downloaded=self._run.report.downloaded, requests=requests)
        if self._front is not None:
            workers = frozenset(descendants(self._front.pid))
            self.lost_a_worker = self.lost_a_worker or bool(self._workers - workers)
            self._workers = workers
        if self._witness is None:
            return False
        lost = self._witness.look()
        if self._witness.first is not None:
            self._run.report.withdraw()  # whatever it turns out to be: this engine answers nobody any more
        return lost

    def _renew(self) -> None:
        try:
            told = self._renewal.look() if self._renewal is not None else None
        except (NimctlError, OSError) as error:
            why = f"{error.message}: {error.cause}" if isinstance(error, NimctlError) else str(error)
            self._run.journal.warning("front", f"a changed file cannot be used, what was read before stays: {why}")
        else:
            if told is not None:
                self._run.journal.info("front", told)

"""How the server ends: drained on request, at once while it starts or when it fails."""

import signal
import time

from entrypoint.front import open_requests
from entrypoint.group import Over
from entrypoint.group.membership import Membership
from entrypoint.observability.journal import Journal
from entrypoint.processes.supervisor import Died, Stop, Supervisor
from entrypoint.run import Run
from entrypoint.state import State
from entrypoint.unixhttp import UnreachableError, get_unix

# What the engine gets beyond the drain time before it is killed; the container's stop timeout must be longer.
MARGIN_SECONDS = 5.0
# A start that is stopped has nothing to lose: the whole of it must be gone within 2 s.
_QUICK_SECONDS = 1.0


def drain_and_stop(run: Run) -> None:
    """Refuse new requests, let the running ones finish, end engine and front. A second signal cuts it short.

    In a group it is the leader who knows of requests: it lets the others go when they are finished.
    """
    supervisor, report, members, drain_seconds = run.supervisor, run.report, run.members, run.settings.drain_seconds
    began = time.monotonic()
    served = report.current.state == "ready"
    report.stopping()
    supervisor.close()
    if not members.role.leads:
        members.stop()
        served = served and _until_let_go(supervisor, members, began + drain_seconds)
    if served:
        patient = not members.role.leads or _drain(supervisor, run.state, run.journal, began + drain_seconds)
        budget = drain_seconds + MARGIN_SECONDS if patient else 0.0
    else:
        budget = _QUICK_SECONDS
    if members.role.leads:
        members.stop()
    if child := supervisor.find("engine"):
        supervisor.end(child, signal.SIGTERM, began + budget)
        child.signal_group(signal.SIGKILL)
    stop_front(supervisor, _QUICK_SECONDS / 2)
    supervisor.kill_all()


def _drain(supervisor: Supervisor, state: State, journal: Journal, deadline: float) -> bool:
    """Wait for the running requests; False when a second signal says that nobody wants to wait."""
    told = -1
    while time.monotonic() < deadline:
        try:
            count = open_requests(get_unix(state.front_socket, "/counters", timeout=1.0).body.decode())
        except (UnreachableError, ValueError) as error:
            journal.warning("stop", f"the front does not tell how many requests run: {error}")
            return True
        if count <= 0:
            return True
        if count != told:
            told = count
            journal.info("stop", f"waiting for {count} request(s)")
        event = supervisor.next_event(0.05)
        if isinstance(event, Stop):
            return False
        if isinstance(event, Died):
            return True
    journal.warning("stop", f"{told} request(s) did not finish in time")
    return True


def _until_let_go(supervisor: Supervisor, members: Membership, deadline: float) -> bool:
    """As a follower: serve on until the leader says that it is over; False when somebody is impatient."""
    while not members.over and time.monotonic() < deadline:
        event = supervisor.next_event(0.1)
        if isinstance(event, (Stop, Died)):
            return False
        if isinstance(event, Over):
            break
    return True


def stop_front(supervisor: Supervisor, seconds: float) -> None:
    """End nginx: first so that what it is sending still goes out, then whatever it takes."""
    if child := supervisor.find("front"):
        supervisor.end(child, signal.SIGQUIT, time.monotonic() + seconds)
        child.signal_group(signal.SIGKILL)


def stop_after_failure(supervisor: Supervisor) -> None:
    """End what is left; nobody waits for answers any more."""
    supervisor.close()
    if child := supervisor.find("engine"):
        supervisor.end(child, signal.SIGTERM, time.monotonic() + _QUICK_SECONDS)
        child.signal_group(signal.SIGKILL)
    stop_front(supervisor, _QUICK_SECONDS / 2)
    supervisor.kill_all()

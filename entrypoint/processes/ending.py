"""How the server ends: drained on request, at once while it starts or when it fails."""

import re
import signal
import time

from entrypoint.front import open_requests
from entrypoint.group import Over
from entrypoint.group.membership import Membership
from entrypoint.processes.supervisor import Died, Stop, Supervisor
from entrypoint.run import Run
from entrypoint.state import State
from entrypoint.unixhttp import UnreachableError, get_unix

# All is gone this long after the drain time, whatever hangs; the container's stop timeout must be longer.
MARGIN_SECONDS = 2.0
# What the engine gets to end in order once nothing runs any more. One that hangs is not waited for longer.
_ORDER_SECONDS = 10.0
# What of the margin belongs to nginx and to the laying to rest.
_LAST_SECONDS = 0.75
# A start that is stopped has nothing to lose: the whole of it must be gone within 2 s.
_QUICK_SECONDS = 1.0
# How long the engine must have had nothing to do, where nginx's own count cannot be believed.
_IDLE_SECONDS = 1.0

_BUSY = re.compile(rb"^vllm:num_requests_(?:running|waiting)\b[^\n]* ([0-9.e+]+)$", re.MULTILINE)


def drain_and_stop(run: Run, *, miscounted: bool = False) -> None:
    """Refuse new requests, let the running ones finish, end engine and front. A second signal cuts it short.

    In a group it is the leader who knows of requests: it lets the others go when they are finished. `miscounted` says
    that nginx has lost a worker: what that one had begun stays in its count.
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
        patient = not members.role.leads or _drain(run, began + drain_seconds, miscounted=miscounted)
        latest = began + drain_seconds + MARGIN_SECONDS - _LAST_SECONDS
        deadline = min(time.monotonic() + _ORDER_SECONDS, latest) if patient else 0.0
    else:
        deadline = began + _QUICK_SECONDS
    if members.role.leads:
        members.stop()
    if child := supervisor.find("engine"):
        supervisor.end(child, signal.SIGTERM, deadline)
        child.signal_group(signal.SIGKILL)
    stop_front(supervisor, _QUICK_SECONDS / 2)
    supervisor.kill_all()


def _drain(run: Run, deadline: float, *, miscounted: bool) -> bool:
    """Wait for the running requests; False when a second signal says that nobody wants to wait."""
    told, idle_since = -1, None
    while time.monotonic() < deadline:
        try:
            count = open_requests(get_unix(run.state.front_socket, "/counters", timeout=1.0).body.decode())
        except (UnreachableError, ValueError) as error:
            run.journal.warning("stop", f"the front does not tell how many requests run: {error}")
            return True
        if miscounted and count > 0:
            idle_since = (idle_since or time.monotonic()) if _is_idle(run.state) else None
            if idle_since is not None and time.monotonic() - idle_since >= _IDLE_SECONDS:
                return True
        if count <= 0:
            return True
        if count != told:
            told = count
            run.journal.info("stop", f"waiting for {count} request(s)")
        event = run.supervisor.next_event(0.05)
        if isinstance(event, Stop):
            return False
        if isinstance(event, Died):
            return True
    run.journal.warning("stop", f"{told} request(s) did not finish in time")
    return True


def _is_idle(state: State) -> bool:
    """Whether the engine itself says that it has nothing to do."""
    try:
        answer = get_unix(state.engine_socket, "/metrics", timeout=1.0)
    except UnreachableError:
        return False
    found = _BUSY.findall(answer.body)
    return bool(found) and all(float(value) == 0 for value in found)


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

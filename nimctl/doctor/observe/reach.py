"""Whether the hosts that a model needs answer from here, through the proxy where there is one."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.facts import HostReach
from nimctl.doctor.observe.trust import Trust
from nimctl.doctor.observe.visit import Visit, Way

# What keeps the download from the network, and how huggingface_hub reads it:
# https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
_SWITCH, _TRUE = "HF_HUB_OFFLINE", ("1", "on", "yes", "true")
_MARGIN = 0.1  # of the time: what is left for those that bound themselves to say so


@dataclass(frozen=True)
class Destination:
    """A host to ask: its base address, and what it is needed for, in the words of `HostReach.purpose`."""

    url: str
    purpose: str


def reach(
    destinations: Sequence[Destination], environment: Mapping[str, str], until: float
) -> tuple[HostReach, ...] | None:
    """How each host answers, in the order of `destinations`, asked side by side; None when there is none to ask.

    Each gets one HEAD of its base address, without any key; whatever it answers means that it is reached. What does not
    answer by `until` (time.monotonic) is left behind in its thread: a name server that is dead keeps the system's
    resolver for ten seconds.
    """
    if not destinations:
        return None
    now = time.monotonic()
    way = Way(environment, Trust(environment), now, until - _MARGIN * max(0.0, until - now))
    visits = [_InThread(Visit(destination.url, destination.purpose, way)) for destination in destinations]
    return tuple(visit.answer(until) for visit in visits)


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether the environment keeps downloads from the network, as the download itself reads it."""
    return environment.get(_SWITCH, "").strip().lower() in _TRUE


class _InThread:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._done = threading.Event()
        self._found: HostReach | None = None
        threading.Thread(target=self._run, name="doctor-reach", daemon=True).start()

    def _run(self) -> None:
        self._found = self._visit.make()
        self._done.set()

    def answer(self, until: float) -> HostReach:
        self._done.wait(max(0.0, until - time.monotonic()))
        return self._found or self._visit.late()

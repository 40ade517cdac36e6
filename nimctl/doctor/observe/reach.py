"""Whether the hosts that a model needs answer from here, through the proxy where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.facts import HostReach


@dataclass(frozen=True)
class Destination:
    """A host to ask: its base address, and what it is needed for (image, weights, key)."""

    url: str
    purpose: str


def reach(
    destinations: Sequence[Destination], environment: Mapping[str, str], until: float
) -> tuple[HostReach, ...] | None:
    """How each host answers, in the order of `destinations`, asked side by side; None when there is none to ask."""
    return None


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether the environment forbids the network."""
    return False

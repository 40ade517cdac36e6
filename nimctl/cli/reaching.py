"""Which hosts a model needs from here, and what its registry says to the key: what the doctor asks for a verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nimctl.cli.config import Config
from nimctl.cli.target import Target
from nimctl.core.facts import ImageAccess
from nimctl.doctor.observe.reach import Destination


def destinations(target: Target, config: Config, environment: Mapping[str, str]) -> tuple[Destination, ...]:
    """The hosts that a run of `target` would ask; none when the network must not be used."""
    return ()


def image_access(
    target: Target, config: Config, environment: Mapping[str, str]
) -> Callable[[float], ImageAccess] | None:
    """Asks the registry for the image's manifest within the seconds given; None when nothing would be pulled."""
    return None

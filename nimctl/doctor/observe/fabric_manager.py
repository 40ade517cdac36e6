"""NVIDIA's fabric manager, the service that joins GPUs behind NVSwitches into one fabric."""

from collections.abc import Mapping

from nimctl.core.facts import FabricManagerFacts


def look_at_fabric_manager(until: float, environment: Mapping[str, str]) -> FabricManagerFacts:
    """Its version and the state of its service, asked until `until` (of `time.monotonic`) at the latest."""
    return FabricManagerFacts()

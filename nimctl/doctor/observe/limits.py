"""Limits on memory locks, files and processes."""

from pathlib import Path

from nimctl.core.facts import LimitFacts


def look_at_limits(root: Path = Path("/")) -> LimitFacts:
    """This process's limits, and the machine's below `root`."""
    return LimitFacts()

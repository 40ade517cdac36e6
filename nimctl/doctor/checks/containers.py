"""What already runs in Docker on this host."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

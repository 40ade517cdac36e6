"""What confines programs on this host, and what that means for containers and GPUs."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

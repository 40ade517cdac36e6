"""Known security holes of what runs here."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

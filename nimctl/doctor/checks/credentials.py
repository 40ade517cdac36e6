"""Keys, logins, and what the registry says to them."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

"""CDI specifications: present, current, and each device once."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

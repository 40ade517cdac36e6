"""Shared memory and the limits that a server with many ranks meets."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

"""The kinds of filesystem under the cache and the images."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

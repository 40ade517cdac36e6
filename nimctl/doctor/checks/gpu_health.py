"""Whether the chosen GPUs are well: memory errors, modes, links to the host."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

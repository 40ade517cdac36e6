"""How the GPUs reach each other: NVLink, the switch fabric, and direct access over PCI."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

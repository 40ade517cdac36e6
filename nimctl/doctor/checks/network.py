"""The port to publish on, proxies, certificates, the clock, and the hosts that the model needs."""

from nimctl.doctor.model import Check

CHECKS: tuple[Check, ...] = ()

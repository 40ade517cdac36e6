"""The checks: pure functions from facts to findings, in the order in which people read them."""

from nimctl.doctor.checks import access, cache, disk, docker, driver, gpus, host, toolkit
from nimctl.doctor.model import Check

ALL: tuple[Check, ...] = (
    *host.CHECKS,
    *driver.CHECKS,
    *gpus.CHECKS,
    *docker.CHECKS,
    *toolkit.CHECKS,
    *cache.CHECKS,
    *disk.CHECKS,
    *access.CHECKS,
)

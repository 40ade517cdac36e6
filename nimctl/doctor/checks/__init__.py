"""The checks: pure functions from facts to findings, in the order in which people read them."""

from nimctl.doctor.checks import (
    advisories,
    cache,
    cdi,
    confinement,
    containers,
    credentials,
    disk,
    docker,
    driver,
    filesystem,
    gpu_health,
    gpu_links,
    gpus,
    host,
    limits,
    network,
    toolkit,
)
from nimctl.doctor.model import Check

ALL: tuple[Check, ...] = (
    *host.CHECKS,
    *limits.CHECKS,
    *confinement.CHECKS,
    *driver.CHECKS,
    *gpus.CHECKS,
    *gpu_health.CHECKS,
    *gpu_links.CHECKS,
    *docker.CHECKS,
    *toolkit.CHECKS,
    *cdi.CHECKS,
    *containers.CHECKS,
    *cache.CHECKS,
    *filesystem.CHECKS,
    *disk.CHECKS,
    *network.CHECKS,
    *credentials.CHECKS,
    *advisories.CHECKS,
)

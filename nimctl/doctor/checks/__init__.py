"""The checks: pure functions from facts to findings, in the order in which people read them."""

from dataclasses import replace
from functools import wraps

from nimctl.core.facts import HostFacts
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
    image_labels,
    limits,
    network,
    toolkit,
)
from nimctl.doctor.checks.scope import docker_elsewhere
from nimctl.doctor.model import Check, Finding, Needs, skipped

_GROUPS_OF_THIS_MACHINE = ("host", "process", "gpu", "storage")
_OF_THIS_MACHINE = ("cgroup-driver", "toolkit", "toolkit-configured", "gpu-runtime", "cdi", "image-needs",
                    "advisories-driver", "advisories-toolkit")  # fmt: skip


def _judged_here(check: Check) -> Check:
    """A check that looks at this machine, and has nothing to say where Docker is on another one."""
    if check.group not in _GROUPS_OF_THIS_MACHINE and check.id not in _OF_THIS_MACHINE:
        return check

    @wraps(check.judge)
    def judge(facts: HostFacts, needs: Needs) -> list[Finding]:
        if reason := docker_elsewhere(facts, needs):
            return [skipped(check.id, check.title, reason)]
        return check.judge(facts, needs)

    return replace(check, judge=judge)


_EVERY: tuple[Check, ...] = (
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
    *image_labels.CHECKS,
    *containers.CHECKS,
    *cache.CHECKS,
    *filesystem.CHECKS,
    *disk.CHECKS,
    *network.CHECKS,
    *credentials.CHECKS,
    *advisories.CHECKS,
)
ALL: tuple[Check, ...] = tuple(_judged_here(check) for check in _EVERY)

"""From findings to remedies: what nimctl can mend by itself, in which order, and what it must leave to a person. Pure.

A remedy is never a guess: each is the command that its finding names, or a part of it that is safe to type for anybody.
"""

from collections.abc import Sequence

from nimctl.core.facts import HostFacts
from nimctl.doctor.fixes import docker, host
from nimctl.doctor.fixes.model import RISKS, Remedy, Risk
from nimctl.doctor.model import Finding, Needs

__all__ = ["RISKS", "Remedy", "Risk", "left_to_you", "plan_remedies"]


def plan_remedies(
    findings: Sequence[Finding], facts: HostFacts, needs: Needs, *, docker_config: str = ""
) -> tuple[Remedy, ...]:
    """The remedies for these findings of this host, in the order in which they have to be applied.

    From the bottom up: the driver, then Docker, which starts with it, then what describes the driver to Docker, then
    the cache. `docker_config` is the caller's own config.json of the docker command, empty where it is not known.
    """
    ill = [f for f in findings if f.verdict in ("fail", "warn")]
    return (
        *host.login(ill, facts, docker_config),
        *host.driver(ill, facts),
        *host.fabric(ill, facts),
        *host.persistence(ill, facts, needs),
        *docker.remedies(ill, facts),
        *host.cache(ill, facts),
    )


def left_to_you(findings: Sequence[Finding], remedies: Sequence[Remedy]) -> tuple[Finding, ...]:
    """The findings that no remedy mends and that name a way out: a person has to decide, install or reboot."""
    mended = {finding for remedy in remedies for finding in remedy.mends}
    return tuple(f for f in findings if f.verdict in ("fail", "warn") and f.fix and f.id not in mended)

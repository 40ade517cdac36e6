"""The Docker Engine: there, usable by this user, and new enough."""

from nimctl.core.docker_state import docker_error
from nimctl.core.facts import DockerFacts, HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import docker_silent, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least

_INSTALL = f"Install Docker Engine {minimums.DOCKER} or later: https://docs.docker.com/engine/install/"


def judge_docker(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The daemon answers this user, without sudo."""
    if reason := no_docker_wanted(needs):
        return [skipped("docker", "Docker", reason)]
    docker = facts.docker
    if error := docker_error(docker, facts.system.groups):
        return [failed("docker", error.id, error.message, cause=error.cause, fix=error.fix, evidence=error.evidence)]
    where = f" on {docker.endpoint}" if docker.endpoint else ""
    findings = [passed("docker", f"the Docker daemon answers{where}")]
    if user_namespaces(docker):
        findings.append(
            warned(
                "docker",
                "docker-user-namespace",
                "Docker is rootless" if docker.rootless else "Docker maps user ids (userns-remap)",
                cause="group 0 in a container is another group here, so permissions of the cache cannot be told",
                fix="Give the cache folder to the mapped group (`/etc/subgid`), or use a daemon that runs as root.",
                severity="info",
            )
        )
    return findings


def judge_version(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The engine is new enough."""
    if reason := no_docker_wanted(needs) or docker_silent(facts):
        return [skipped("docker-version", "Docker version", reason)]
    version = facts.docker.version
    enough = at_least(version, minimums.DOCKER)
    if enough is None:
        return [unknown("docker-version", f"Docker version {version or 'not told'}", cause="its number cannot be read")]
    title = f"Docker Engine {version} ({minimums.DOCKER} or later is needed)"
    if enough:
        return [passed("docker-version", title)]
    cause = f"Engine {version} is older than the minimum that NVIDIA states"
    return [failed("docker-version", "docker-too-old", title, cause=cause, fix=_INSTALL)]


def user_namespaces(docker: DockerFacts) -> bool:
    """Whether user and group ids in containers are others on the host."""
    options = docker.security_options
    return docker.rootless is True or any("userns" in option or "rootless" in option for option in options)


CHECKS = (
    Check("docker", "docker", "the Docker daemon answers this user without sudo", judge_docker),
    Check("docker-version", "docker", f"Docker Engine {minimums.DOCKER} or later", judge_version),
)

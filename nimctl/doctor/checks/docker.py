"""The Docker Engine: there, usable by this user, and new enough."""

from nimctl.core.facts import DockerFacts, HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.scope import docker_silent, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least

_INSTALL = f"Install Docker Engine {minimums.DOCKER} or later: https://docs.docker.com/engine/install/"

# What each state that is not "ok" means: error id, title, cause, fix.
_STATES = {
    "missing": (
        "docker-missing",
        "no Docker Engine",
        "there is no socket where a Docker daemon would listen",
        f"{_INSTALL}; or start the server without containers: --runtime process.",
    ),
    "permission": (
        "docker-permission",
        "this user may not use Docker",
        "the Docker socket exists, and refuses this user",
        "Run `sudo usermod -aG docker $USER`, then log out and back in.",
    ),
    "unreachable": (
        "docker-unreachable",
        "the Docker daemon does not answer",
        "nothing listens where the daemon should",
        "Start it with `sudo systemctl start docker`; `sudo journalctl -u docker -n 50` says why it stopped. "
        "Check DOCKER_HOST when it is set.",
    ),
    "hangs": (
        "docker-hangs",
        "the Docker daemon hangs",
        "it accepts connections and does not answer them",
        "Restart it with `sudo systemctl restart docker` (running containers stop unless live-restore is on); "
        "`sudo journalctl -u docker -n 50` says what it waits for.",
    ),
}


def judge_docker(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The daemon answers this user, without sudo."""
    if reason := no_docker_wanted(needs):
        return [skipped("docker", "Docker", reason)]
    docker = facts.docker
    if docker.state != "ok":
        error_id, title, cause, fix = _STATES[docker.state]
        if docker.state == "permission" and "docker" in facts.system.groups:
            fix = "This user is in the group docker already: check owner and mode with `ls -l /var/run/docker.sock`."
        evidence = tuple(line for line in (docker.endpoint, docker.detail) if line)
        return [failed("docker", error_id, title, cause=cause, fix=fix, evidence=evidence)]
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

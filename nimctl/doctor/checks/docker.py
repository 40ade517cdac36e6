"""The Docker Engine: there, usable by this user, new enough, and of a kind that can run the server."""

import shlex
from pathlib import PurePosixPath

from nimctl.core.docker_state import docker_error, elsewhere, podman_error, service_command
from nimctl.core.facts import DockerFacts, HostFacts
from nimctl.doctor import minimums
from nimctl.doctor.checks.docker_setup import CHECKS as SETUP_CHECKS
from nimctl.doctor.checks.scope import no_docker_wanted, no_engine, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned
from nimctl.doctor.versions import at_least

_INSTALL = f"Install Docker Engine {minimums.DOCKER} or later: https://docs.docker.com/engine/install/"
# Below this, only root may listen unless the kernel is told otherwise.
_FIRST_FREE_PORT = 1024
# What Canonical's snap may see of the host: https://github.com/canonical/docker-snap#usage
_SNAP_SEES = ("/home/", "/root/")


def judge_docker(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The daemon answers this user without sudo, and it is Docker's. Podman behind Docker's socket accepts requests
    for GPUs and ignores them: https://github.com/containers/podman/issues/22645
    """
    if reason := no_docker_wanted(needs):
        return [skipped("docker", "Docker", reason)]
    docker = facts.docker
    if error := docker_error(docker, facts.system.groups):
        cause, fix = _kept_from_starting(docker) or (error.cause, error.fix)
        return [failed("docker", error.id, error.message, cause=cause, fix=fix, evidence=error.evidence)]
    if error := podman_error(docker):
        if not no_gpu_wanted(needs):
            return [
                failed("docker", error.id, error.message, cause=error.cause, fix=error.fix, evidence=error.evidence)
            ]
        cause = "its Docker API has gaps; a run without GPUs may work, and is not tested with it"
        return [warned("docker", error.id, error.message, cause=cause, fix=error.fix, evidence=error.evidence)]
    if elsewhere(docker):
        return [_on_another_machine(docker)]
    where = f" on {docker.endpoint}" if docker.endpoint else ""
    return [passed("docker", f"the Docker daemon answers{where}")]


def _on_another_machine(docker: DockerFacts) -> Finding:
    return warned(
        "docker",
        "docker-remote",
        f"Docker is on another machine ({docker.endpoint})",
        cause="its GPUs, driver, toolkit, memory, disks and cache cannot be seen from here, and are not judged",
        fix="Run nimctl on that machine; for the Docker of this one unset DOCKER_HOST (`docker context use default`).",
    )


def _kept_from_starting(docker: DockerFacts) -> tuple[str, str] | None:
    """Cause and fix where Docker's configuration file is why nothing answers: starting it again would not help."""
    config = docker.config
    if docker.state != "unreachable" or config is None or not (config.exists and config.problem):
        return None
    cause = f"it does not start with its configuration {config.path}: {config.problem}"
    return cause, f"Correct {config.path}, then `{service_command(docker, 'start')}`."


def judge_version(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The engine is as new as NVIDIA's page asks for:
    https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html
    """
    if reason := no_docker_wanted(needs) or no_engine(facts):
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


def judge_kind(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Docker Engine under root is what everything here is made for. A snap is confined to home folders
    (https://github.com/canonical/docker-snap), Docker Desktop is a virtual machine that has GPUs with WSL 2 only
    (https://docs.docker.com/desktop/features/gpu/), and a rootless engine maps user ids and obeys fewer limits
    (https://docs.docker.com/engine/security/rootless/).
    """
    check, docker = "docker-kind", facts.docker
    if reason := no_docker_wanted(needs) or no_engine(facts):
        return [skipped(check, "kind of Docker", reason)]
    if docker.kind == "desktop":
        return [_desktop(facts, needs)]
    findings = [_snap(facts)] if docker.kind == "snap" else []
    if user_namespaces(docker):
        findings += [_mapped(facts), *_rootless(facts)]
    if findings:
        return findings
    if docker.kind == "engine":
        return [passed(check, "Docker Engine, run by root on this machine or where it listens")]
    if docker.kind == "other":
        return [unknown(check, "a Docker of another maker", cause="it names no component Engine; nothing was tested")]
    return [unknown(check, "kind of Docker", cause="the daemon does not say of what it is made")]


def _desktop(facts: HostFacts, needs: Needs) -> Finding:
    if not facts.system.wsl and not no_gpu_wanted(needs):
        return skipped("docker-kind", "Docker Desktop", "see the check gpu-runtime")
    if facts.system.wsl:
        cause = "containers run in its own virtual machine, whose memory and disk count, and not those seen here"
        fix = "Give that machine memory and disk enough in Docker Desktop, or install Docker Engine inside of WSL."
        title = "Docker Desktop with WSL 2"
        return warned("docker-kind", "docker-desktop", title, cause=cause, fix=fix, severity="info")
    cause = "containers run in its own virtual machine, which has no GPU and limits of memory and disk of its own"
    fix = "Use Docker Engine: https://docs.docker.com/engine/install/, then `docker context use default`."
    return warned("docker-kind", "docker-desktop", "Docker Desktop", cause=cause, fix=fix)


def _snap(facts: HostFacts) -> Finding:
    path = str(PurePosixPath(facts.cache.path)) + "/"
    outside = not path.startswith(_SNAP_SEES)
    cause = "the snap's confinement keeps Docker to home folders and to its own copy of NVIDIA's toolkit"
    return warned(
        "docker-kind",
        "docker-snap",
        f"Docker is a snap, and does not see {facts.cache.path}" if outside else "Docker is a snap",
        cause=cause,
        fix="Remove it (`sudo snap remove docker`) and install Docker Engine: https://docs.docker.com/engine/install/",
    )


def _mapped(facts: HostFacts) -> Finding:
    """Without root the container's ids 0 are the caller's own, and its others those of /etc/subuid and /etc/subgid:
    https://docs.docker.com/engine/security/rootless/; with userns-remap 0 is mapped as well.
    """
    path = shlex.quote(facts.cache.path)
    if facts.docker.rootless:
        title = "Docker is rootless"
        cause = "group 0 in a container is your own group here, and other ids are those of /etc/subuid"
        fix = f'Let your own group write in the cache: `chgrp -R "$(id -g)" {path} && chmod -R g+rwX {path}`.'
    else:
        title = "Docker maps user ids (userns-remap)"
        cause = "group 0 in a container is another group here, so permissions of the cache cannot be told"
        fix = "Give the cache folder to the mapped group (`/etc/subgid`), or use a daemon without userns-remap."
    return warned("docker-kind", "docker-user-namespace", title, cause=cause, fix=fix, severity="info")


def _rootless(facts: HostFacts) -> list[Finding]:
    """What a rootless engine cannot do here."""
    docker, findings = facts.docker, []
    if not docker.rootless:
        return []
    if facts.port.port and facts.port.port < _FIRST_FREE_PORT:
        port = facts.port.port
        findings.append(
            warned(
                "docker-kind",
                "docker-rootless-port",
                f"rootless Docker may not publish port {port}",
                cause=f"ports below {_FIRST_FREE_PORT} belong to root unless the kernel is told otherwise",
                fix=f"Use a higher --port, or `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`.",
            )
        )
    if docker.cgroup_version == "1" or docker.cgroup_driver == "none":
        findings.append(
            warned(
                "docker-kind",
                "docker-rootless-limits",
                "rootless Docker ignores limits of memory, CPU and processes here",
                cause="it can set them with control groups version 2 and systemd only",
                fix="Boot with `systemd.unified_cgroup_hierarchy=1`, or use a daemon that runs as root.",
                severity="info",
            )
        )
    return findings


def user_namespaces(docker: DockerFacts) -> bool:
    """Whether user and group ids in containers are others on the host."""
    options = docker.security_options
    return docker.rootless is True or any("userns" in option or "rootless" in option for option in options)


CHECKS = (
    Check(
        "docker",
        "docker",
        "the Docker daemon answers this user without sudo",
        judge_docker,
        (
            "docker-hangs",
            "docker-is-podman",
            "docker-missing",
            "docker-permission",
            "docker-remote",
            "docker-unreachable",
        ),
    ),
    Check("docker-version", "docker", f"Docker Engine {minimums.DOCKER} or later", judge_version, ("docker-too-old",)),
    Check(
        "docker-kind",
        "docker",
        "Docker is the engine, and not a snap, a desktop or rootless",
        judge_kind,
        ("docker-desktop", "docker-rootless-limits", "docker-rootless-port", "docker-snap", "docker-user-namespace"),
    ),
    *SETUP_CHECKS,
)

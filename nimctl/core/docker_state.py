"""What it means that Docker cannot be used: one error for the checks, the plan and the connection. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts, DockerState

_CONFIG = "/etc/docker/daemon.json"
_ROOTLESS_SOCKET = re.compile(r"unix:///(?:var/)?run/user/\d+/docker\.sock")
_HERE = re.compile(r"localhost|127(\.\d+){3}|::1")

# What each state that is not "ok" means: error id, message, cause, fix. In a fix, {start} and {restart} are commands
# and {log} one that shows what the daemon wrote.
_STATES: Mapping[DockerState, tuple[str, str, str, str]] = {
    "missing": (
        "docker-missing",
        "no Docker Engine",
        "there is no socket where a Docker daemon would listen",
        "Install Docker Engine 24.0 or later: https://docs.docker.com/engine/install/; "
        "or start the server without containers: --runtime process.",
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
        "no working daemon answers where it should listen",
        "Start it with `{start}`; `{log}` says why it stopped. Check DOCKER_HOST when it is set.",
    ),
    "hangs": (
        "docker-hangs",
        "the Docker daemon hangs",
        "it accepts connections and does not answer them",
        "Restart it with `{restart}` (running containers stop unless live-restore is on); "
        "`{log}` says what it waits for.",
    ),
}
_IN_GROUP = "This user is in the group docker already: check owner and mode with `ls -l /var/run/docker.sock`."
_ROOTLESS_MISSING = "Start rootless Docker with `{start}`; or unset DOCKER_HOST (`docker context use default`)."
_ROOTLESS_REFUSED = "It is another user's rootless Docker: unset DOCKER_HOST, or `docker context use default`."
_ELSEWHERE = (
    "Look at Docker on that machine, and check DOCKER_HOST and `docker context ls`; "
    "nimctl is best run on the machine where Docker is."
)
# What is said where docker-py asks for a library of its own: https://docker-py.readthedocs.io/en/stable/client.html
NO_SSH = "nimctl does not speak to Docker over ssh"
_OVER_SSH = (
    "Run nimctl on that machine, where Docker, GPUs and cache are; "
    "for the Docker of this one unset DOCKER_HOST (`docker context use default`)."
)


def elsewhere(docker: DockerFacts) -> bool:
    """Whether the daemon is on another machine: its address is no socket of this one, and not the loopback."""
    try:
        address = urlsplit(docker.endpoint or "unix:///")
    except ValueError:  # brackets of an IPv6 address that do not match
        return True
    if address.scheme in ("unix", "http+unix", "npipe", "fd", ""):
        return False
    return not _HERE.fullmatch(address.hostname or "")


def is_rootless(docker: DockerFacts) -> bool:
    """Whether it is a daemon without root; one that does not answer is told by where its socket lies."""
    return docker.rootless is True or bool(_ROOTLESS_SOCKET.fullmatch(docker.endpoint or ""))


def service_command(docker: DockerFacts, verb: Literal["start", "restart", "reload"]) -> str:
    """The command that starts, restarts or reloads this kind of Docker."""
    if docker.kind == "snap":  # https://snapcraft.io/docs/service-management
        return f"sudo snap {'start' if verb == 'start' else 'restart'} docker"
    return f"systemctl --user {verb} docker" if is_rootless(docker) else f"sudo systemctl {verb} docker"


def restart(docker: DockerFacts) -> str:
    """The command that restarts Docker, with what that does to running containers: the end of a sentence.

    https://docs.docker.com/engine/daemon/live-restore/
    """
    command = f"`{service_command(docker, 'restart')}`"
    if docker.live_restore:
        return f"{command}; running containers go on, because live-restore is on"
    count = len(docker.containers or ())
    unless = "unless live-restore is on" if docker.live_restore is None else "because live-restore is off"
    stops = f"it stops {count} running container{'s' if count > 1 else ''}" if count else "running containers stop"
    return f"{command}; {stops}, {unless}"


def config_path(docker: DockerFacts) -> str:
    """The configuration file of this daemon."""
    if docker.config is not None:
        return docker.config.path
    return "~/.config/docker/daemon.json" if is_rootless(docker) else _CONFIG


def docker_error(docker: DockerFacts, groups: Sequence[str] = ()) -> NimctlError | None:
    """The error of this state, None when Docker answers; `groups` are the names of the caller's groups."""
    if docker.state == "ok":
        return None
    error_id, message, cause, fix = _STATES[docker.state]
    if NO_SSH in (docker.detail or ""):
        cause, fix = f"{NO_SSH}, which DOCKER_HOST or the context asks for", _OVER_SSH
    elif elsewhere(docker):
        message, fix = f"{message} (on another machine)", _ELSEWHERE
    elif is_rootless(docker) and docker.state in ("missing", "permission"):
        fix = _ROOTLESS_MISSING if docker.state == "missing" else _ROOTLESS_REFUSED
    elif docker.state == "permission" and "docker" in groups:
        fix = _IN_GROUP
    log = "journalctl --user -u docker -n 50" if is_rootless(docker) else "sudo journalctl -u docker -n 50"
    fix = fix.format(
        start=service_command(docker, "start"),
        restart=service_command(docker, "restart"),
        log="sudo snap logs docker -n 50" if docker.kind == "snap" else log,
    )
    evidence = tuple(line for line in (docker.endpoint, docker.detail) if line)
    return NimctlError(error_id, message, cause=cause, fix=fix, evidence=evidence)


def podman_error(docker: DockerFacts) -> NimctlError | None:
    """The error of a run with GPUs where Podman answers on Docker's socket; None where it does not.

    Podman's Docker API takes `--gpus` and `--runtime=nvidia`, says nothing and starts the container without GPUs:
    https://github.com/containers/podman/issues/22645, https://github.com/lablup/backend.ai/issues/13820 (measured).
    """
    if docker.state != "ok" or docker.kind != "podman":
        return None
    return NimctlError(
        "docker-is-podman",
        f"Podman {docker.version or ''} answers in Docker's place".replace("  ", " "),
        cause="its Docker API ignores what asks for GPUs, so that a container would start without them",
        fix="Install Docker Engine (https://docs.docker.com/engine/install/), or point DOCKER_HOST at its socket.",
        evidence=tuple(line for line in (docker.endpoint,) if line),
    )

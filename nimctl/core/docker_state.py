"""What it means that Docker cannot be used: one error for the checks, the plan and the connection. Pure."""

from collections.abc import Mapping, Sequence

from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts, DockerState

# What each state that is not "ok" means: error id, message, cause, fix.
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
_IN_GROUP = "This user is in the group docker already: check owner and mode with `ls -l /var/run/docker.sock`."


def docker_error(docker: DockerFacts, groups: Sequence[str] = ()) -> NimctlError | None:
    """The error of this state, None when Docker answers; `groups` are the names of the caller's groups."""
    if docker.state == "ok":
        return None
    error_id, message, cause, fix = _STATES[docker.state]
    if docker.state == "permission" and "docker" in groups:
        fix = _IN_GROUP
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

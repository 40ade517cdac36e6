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

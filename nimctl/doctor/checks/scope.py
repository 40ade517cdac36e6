"""When a question does not arise: the reasons for which checks are skipped. Empty text means that it does arise."""

from nimctl.core.docker_state import elsewhere
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.gpus import Gpu, select
from nimctl.doctor.model import USUAL_UID, Needs


def no_gpu_wanted(needs: Needs) -> str:
    """Why no GPU is needed."""
    return "no GPU was asked for" if needs.gpus == "none" else ""


def no_docker_wanted(needs: Needs) -> str:
    """Why Docker is not needed."""
    return "the process runtime uses no container" if needs.runtime == "process" else ""


def docker_silent(facts: HostFacts) -> str:
    """Why Docker cannot be asked; the check `docker` says what to do about it."""
    return "" if facts.docker.state == "ok" else "Docker does not answer"


def no_engine(facts: HostFacts) -> str:
    """Why Docker Engine cannot be judged: it does not answer, or Podman answers in its place."""
    if facts.docker.state == "ok" and facts.docker.kind == "podman":
        return "Podman answers in Docker's place"
    return docker_silent(facts)


def docker_elsewhere(facts: HostFacts, needs: Needs) -> str:
    """Why the facts of this machine say nothing of a run: its containers start on another one."""
    return "Docker is on another machine" if not no_docker_wanted(needs) and elsewhere(facts.docker) else ""


def look_failed(facts: HostFacts, name: str) -> str:
    """Why the look called `name` saw nothing, so that what is missing in the facts may be there all the same."""
    return next((p for p in facts.problems if p.startswith(f"{name}: ")), "")


def chosen_gpus(facts: HostFacts, needs: Needs) -> tuple[Gpu, ...]:
    """The GPUs that a run would use; none where the choice itself is an error, which `gpu-choice` reports."""
    if needs.gpus == "none" or facts.gpus.state != "ok":
        return ()
    try:
        return select(facts.gpus, needs.gpus or "all")
    except NimctlError:
        return ()


def container_uid(facts: HostFacts, needs: Needs) -> int:
    """The user id of the container: the one that is known, else the caller's, which never is root's."""
    return needs.uid or facts.system.uid or USUAL_UID

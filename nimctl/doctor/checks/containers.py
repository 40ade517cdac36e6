"""What already runs in Docker on this host."""

from nimctl.core.facts import ContainerFacts, HostFacts
from nimctl.core.secret import KEY_VARIABLES
from nimctl.doctor.checks.scope import no_docker_wanted, no_engine, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned

_NOT_LISTED = "Docker did not list its containers in time"
# NVIDIA's images take their key from the environment, as their pages say; that is no fault of the user.
# https://docs.nvidia.com/nim/large-language-models/latest/get-started/index.html
_NIM_IMAGES = "nvcr.io/nim/"
_NIM_KEY = "NGC_API_KEY"
_MOST_NAMED = 16


def judge_gpu_containers(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Which containers have GPUs already: they share the memory of those GPUs, and whatever restarts Docker ends them.
    https://docs.docker.com/engine/daemon/live-restore/
    """
    check, title = "gpu-containers", "containers with GPUs"
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or no_engine(facts):
        return [skipped(check, title, reason)]
    containers = facts.docker.containers
    if containers is None:
        return [unknown(check, title, cause=_NOT_LISTED)]
    having = [c for c in containers if c.gpus]
    unseen = sum(1 for c in containers if c.gpus is None)
    if unseen:
        cause = f"{unseen} of {len(containers)} running containers were not looked at"
        return [unknown(check, f"{len(having)} or more containers have GPUs", cause=cause, evidence=_named(having))]
    if not having:
        return [passed(check, "no running container has GPUs")]
    return [passed(check, f"running containers with GPUs: {len(having)}", evidence=_named(having))]


def _named(containers: list[ContainerFacts]) -> tuple[str, ...]:
    return tuple(f"{c.name or c.id} ({c.image or 'image unknown'})" for c in containers[:_MOST_NAMED])


def judge_keys(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Whoever may use Docker reads the environment of every container, and so does what dumps it into logs; a key in a
    file is seen by the container alone. Looked for: NVIDIA's and Hugging Face's keys, and any key beside a GPU.
    https://docs.docker.com/engine/swarm/secrets/
    """
    check, title = "keys-in-containers", "keys in environments of containers"
    if reason := no_docker_wanted(needs) or no_engine(facts):
        return [skipped(check, title, reason)]
    containers = facts.docker.containers
    if containers is None:
        return [unknown(check, title, cause=_NOT_LISTED)]
    holding = [(c, names) for c in containers if (names := _ours_to_say(c))]
    if not holding:
        return [passed(check, "no key of a model is in the environment of a running container")]
    return [_found(holding)]


def _ours_to_say(container: ContainerFacts) -> tuple[str, ...]:
    """The password of a database is not this program's business; keys of models, and those beside a GPU, are."""
    if container.gpus or container.ours:
        return container.key_variables
    return tuple(name for name in container.key_variables if name in KEY_VARIABLES)


def _found(holding: list[tuple[ContainerFacts, tuple[str, ...]]]) -> Finding:
    """One finding for all of them: what to do is the same, and is a note only where none can do otherwise."""
    as_documented = all(_as_documented(container, names) for container, names in holding)
    container, names = holding[0]
    if len(holding) > 1:
        title = f"the environments of {len(holding)} containers hold keys"
        evidence = tuple(f"{c.name or c.id}: {', '.join(names)}" for c, names in holding[:_MOST_NAMED])
        if len(holding) > _MOST_NAMED:
            evidence += (f"and {len(holding) - _MOST_NAMED} more",)
    else:
        what = f"{len(names)} keys" if len(names) > 1 else names[0]
        title = f"the environment of {container.name or container.id} holds {what}"
        evidence = names[:_MOST_NAMED]
    return warned(
        "keys-in-containers",
        "keys-in-environment",
        title,
        cause="whoever may use Docker on this host can read it"
        + ("; NVIDIA's image takes its key in no other way" if as_documented else ""),
        fix="Make it a key of this image alone, and revoke it when the container is gone."
        if as_documented
        else "Hand the key over as a file, as `nimctl run` does where the image can read one, and replace it.",
        evidence=evidence,
        severity="info" if as_documented else "warning",
    )


def _as_documented(container: ContainerFacts, names: tuple[str, ...]) -> bool:
    return (container.image or "").startswith(_NIM_IMAGES) and names == (_NIM_KEY,)


CHECKS = (
    Check("gpu-containers", "docker", "which running containers have GPUs", judge_gpu_containers),
    Check(
        "keys-in-containers",
        "docker",
        "no key is in the environment of a running container",
        judge_keys,
        ("keys-in-environment",),
    ),
)

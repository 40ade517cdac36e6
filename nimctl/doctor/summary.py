"""A host in a few words, for the head of a report. Pure."""

from collections import Counter

from nimctl.core.facts import HostFacts
from nimctl.doctor.sizes import human


def describe_host(facts: HostFacts) -> tuple[tuple[str, str], ...]:
    """What a reader wants to know first, as (word, value); what is not known is left out."""
    system, gpus, docker = facts.system, facts.gpus, facts.docker
    driver = f"{gpus.driver or 'of unknown version'}, CUDA {gpus.cuda or 'unknown'}" if gpus.state == "ok" else None
    pairs = (
        ("system", ", ".join(part for part in (system.os_name, _kernel(system.kernel), system.arch) if part)),
        ("GPUs", describe_gpus(facts)),
        ("driver", driver),
        ("Docker", docker.version or (None if docker.state == "ok" else docker.state)),
        ("toolkit", facts.toolkit.version),
        ("memory", human(system.memory_total) if system.memory_total is not None else None),
    )
    return tuple((word, value) for word, value in pairs if value)


def describe_gpus(facts: HostFacts) -> str:
    """How many GPUs of which model, with their memory."""
    kinds = Counter((g.name or "GPU of unknown model", g.memory_total) for g in facts.gpus.gpus if g.error is None)
    words = [f"{n} x {name}" + (f" ({human(memory)})" if memory else "") for (name, memory), n in kinds.items()]
    if lost := sum(1 for g in facts.gpus.gpus if g.error is not None):
        words.append(f"{lost} that do not answer")
    return ", ".join(words) or "no GPU"


def _kernel(version: str | None) -> str | None:
    return f"kernel {version}" if version else None

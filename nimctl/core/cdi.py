"""By which names CDI specifications list GPUs: one judgement for the checks and for the plan. Pure.

Docker resolves `nvidia.com/gpu=NAME` from the folders that its daemon reads, and from no others:
https://docs.docker.com/reference/cli/dockerd/#configure-cdi-devices
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.facts import CdiSpec, HostFacts
from nimctl.core.gpus import Gpu

KIND = "nvidia.com/gpu"
ALL = "all"


@dataclass(frozen=True)
class CdiNames:
    """The names of the chosen GPUs in `path` (the first specification), or in `problem` why they have none.

    `names` is the one word `all`, or a name for each GPU. `path` is None when Docker reads no GPU specification.
    """

    path: str | None
    names: tuple[str, ...] = ()
    missing: tuple[Gpu, ...] = ()
    problem: str | None = None


def usable_specs(facts: HostFacts) -> tuple[CdiSpec, ...]:
    """GPU specifications that list devices and lie in a folder that Docker reads."""
    folders = {folder.rstrip("/") for folder in facts.docker.cdi_spec_dirs or ()}
    return tuple(s for s in gpu_specs(facts) if s.devices and s.path.rpartition("/")[0] in folders)


def gpu_specs(facts: HostFacts) -> tuple[CdiSpec, ...]:
    """Readable GPU specifications, wherever they lie."""
    return tuple(s for s in facts.cdi if s.problem is None and s.kind == KIND)


def names_of(gpus: Sequence[Gpu], facts: HostFacts) -> CdiNames:
    """How Docker calls these GPUs: each by its index, else its UUID; `all` where they are all that the host has.

    A specification that lists GPUs one by one must list each of these, also for `all`: else it was written for other
    GPUs, and `all` would hand over the wrong ones.
    """
    specs = usable_specs(facts)
    if not specs:
        return CdiNames(None, problem=_no_spec(facts))
    path = specs[0].path
    listed = {name for spec in specs for name in spec.devices}
    everything = len(gpus) == len(facts.gpus.gpus) and ALL in listed
    if everything and listed == {ALL}:
        return CdiNames(path, (ALL,))
    named = [(gpu, next((n for n in (str(gpu.index), gpu.uuid) if n in listed), None)) for gpu in gpus]
    if missing := tuple(gpu for gpu, name in named if name is None):
        where, what = ", ".join(s.path for s in specs), ", ".join(sorted(listed))
        indices = ", ".join(str(gpu.index) for gpu in missing)
        why = "it names no single GPU" if listed == {ALL} else "it is stale"
        return CdiNames(path, (), missing, f"{where} lists {what} and not GPU {indices}: {why}")
    return CdiNames(path, (ALL,) if everything else tuple(name for _, name in named if name))


def _no_spec(facts: HostFacts) -> str:
    found = [s.path for s in gpu_specs(facts) if s.devices]
    if not found:
        return f"there is no CDI specification for {KIND}"
    if facts.docker.cdi_spec_dirs is None:
        return f"there is a CDI specification ({found[0]}), but CDI is off in Docker"
    return f"{found[0]} lies in no folder from which Docker reads CDI ({', '.join(facts.docker.cdi_spec_dirs)})"

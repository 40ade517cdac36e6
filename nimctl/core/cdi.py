"""By which names CDI specifications list GPUs: one judgement for the checks and for the plan. Pure.

Docker resolves `nvidia.com/gpu=NAME` from the folders that its daemon reads, and from no others:
https://docs.docker.com/reference/cli/dockerd/#configure-cdi-devices
A later folder wins over an earlier one; a name that two files of one folder define cannot be used at all, whatever a
later folder says (seen with Engine 26.1):
https://github.com/cncf-tags/container-device-interface/blob/main/pkg/cdi/cache.go (refresh)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.facts import CdiSpec, HostFacts
from nimctl.core.gpus import Gpu

KIND = "nvidia.com/gpu"
ALL = "all"


@dataclass(frozen=True)
class CdiNames:
    """The names of the chosen GPUs in `path` (the specification that Docker uses), or in `problem` why they have none.

    `names` is the one word `all`, or a name for each GPU. `path` is None when Docker reads no GPU specification.
    """

    path: str | None
    names: tuple[str, ...] = ()
    missing: tuple[Gpu, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class CdiDevices:
    """What Docker makes of the specifications: `used` is name to the file that defines it for Docker.

    `clashes` are names that two files of one folder define, with those files; Docker resolves none of them.
    """

    used: Mapping[str, CdiSpec]
    clashes: Mapping[str, tuple[CdiSpec, ...]]


def gpu_specs(facts: HostFacts) -> tuple[CdiSpec, ...]:
    """Readable GPU specifications, wherever they lie."""
    return tuple(s for s in facts.cdi if s.problem is None and s.kind == KIND)


def usable_specs(facts: HostFacts) -> tuple[CdiSpec, ...]:
    """GPU specifications that list devices and lie in a folder that Docker reads; the folder that wins comes last."""
    folders = [_plain(folder) for folder in facts.docker.cdi_spec_dirs or ()]
    found = {_plain(s.path): s for s in gpu_specs(facts) if s.devices and folder_of(s) in folders}
    return tuple(sorted(found.values(), key=lambda s: (folders.index(folder_of(s)), s.path)))


def folder_of(spec: CdiSpec) -> str:
    """The folder of a specification, by one name for one folder."""
    return _plain(spec.path).rpartition("/")[0]


def resolve(facts: HostFacts) -> CdiDevices:
    """Which file defines which GPU for Docker."""
    used: dict[str, CdiSpec] = {}
    clashes: dict[str, tuple[CdiSpec, ...]] = {}
    for spec in usable_specs(facts):
        for name in dict.fromkeys(spec.devices):
            other = used.get(name)
            if other is not None and folder_of(other) == folder_of(spec):
                clashes[name] = (*clashes.get(name, (other,)), spec)
            used[name] = spec
    known = facts.docker.cdi_devices
    return CdiDevices(
        {
            name: spec
            for name, spec in used.items()
            if name not in clashes and (known is None or f"{KIND}={name}" in known)
        },
        clashes,
    )


def names_of(gpus: Sequence[Gpu], facts: HostFacts) -> CdiNames:
    """How Docker calls these GPUs: each by its index, else its UUID; `all` where they are all that the host has.

    A specification that lists GPUs one by one must list each of these, also for `all`: else it was written for other
    GPUs, and `all` would hand over the wrong ones.
    """
    specs = usable_specs(facts)
    if not specs:
        return CdiNames(None, problem=_no_spec(facts))
    devices = resolve(facts)
    listed = devices.used
    everything = len(gpus) == len(facts.gpus.gpus) and ALL in listed
    if everything and set(listed) == {ALL}:
        return CdiNames(listed[ALL].path, (ALL,))
    named = [(gpu, _listed(gpu, listed)) for gpu in gpus]
    # Slices are also listed by UUIDs, of which NVML says here to which GPU they belong only where it names them.
    if missing := tuple(gpu for gpu, names in named if not names and not (gpu.mig and everything)):
        return CdiNames(specs[-1].path, (), missing, _why_missing(missing, specs, devices))
    chosen = (ALL,) if everything else tuple(name for _, names in named for name in names)
    return CdiNames(listed[chosen[0]].path if chosen else specs[-1].path, chosen)


def _listed(gpu: Gpu, listed: Mapping[str, CdiSpec]) -> tuple[str, ...]:
    """The names in `listed` that are of this GPU: one, or with MIG one for each of its slices, such as `0:1`.

    `nvidia-ctk cdi generate` lists slices in place of the GPU:
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html
    """
    if gpu.mig:
        slices = (f"{gpu.index}:", f"mig{gpu.index}:")
        uuids = {device.uuid for device in gpu.mig_devices}
        if found := tuple(sorted(name for name in listed if name.startswith(slices) or name in uuids)):
            return found
    return next(((name,) for name in _names(gpu) if name and name in listed), ())


def _names(gpu: Gpu) -> tuple[str | None, ...]:
    """The names that `nvidia-ctk cdi generate --device-name-strategy` gives to a GPU."""
    return str(gpu.index), gpu.uuid, f"gpu{gpu.index}"


def _why_missing(missing: Sequence[Gpu], specs: Sequence[CdiSpec], devices: CdiDevices) -> str:
    indices = ", ".join(str(gpu.index) for gpu in missing)
    clashing = next((c for gpu in missing for n in _names(gpu) if n and (c := devices.clashes.get(n))), None)
    if clashing:
        files = " and ".join(dict.fromkeys(spec.path for spec in clashing))
        return f"{files} both define GPU {indices}, so Docker resolves neither"
    written = {name for spec in specs for name in spec.devices}
    where = ", ".join(s.path for s in specs)
    if all(any(name in written for name in _names(gpu)) for gpu in missing):
        return f"{where} lists GPU {indices}, and Docker does not know it: its daemon cannot read the file"
    why = "it names no single GPU" if written == {ALL} else "it is stale"
    return f"{where} lists {_some(sorted(written))} and not GPU {indices}: {why}"


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _no_spec(facts: HostFacts) -> str:
    found = [s.path for s in gpu_specs(facts) if s.devices]
    if not found:
        return f"there is no CDI specification for {KIND}"
    if facts.docker.cdi_spec_dirs is None:
        return f"there is a CDI specification ({found[0]}), but CDI is off in Docker"
    return f"{found[0]} lies in no folder from which Docker reads CDI ({', '.join(facts.docker.cdi_spec_dirs)})"


def _plain(path: str) -> str:
    """/var/run is a link to /run, and both names are used for the one folder."""
    path = path.rstrip("/")
    return path.removeprefix("/var") if path == "/var/run" or path.startswith("/var/run/") else path

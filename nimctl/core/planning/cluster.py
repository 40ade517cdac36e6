"""The GPUs that a plan is made for: those of one machine, or of several alike. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from nimctl.core.gpus import Gpu
from nimctl.core.hardware import MIB, Machine
from nimctl.core.hardware import find as find_model
from nimctl.core.planning.model import capability_of

Link = Literal["nvlink", "bridge", "pcie", "unknown"]


@dataclass(frozen=True)
class Slot:
    """A place for one rank: a GPU, or a MIG slice of one. Bytes; None where nobody says.

    `total` is what CUDA counts: NVML's figure without what the driver keeps. For a GPU that shares the host's memory
    (`unified`) both are the host's. `nominal`: derived from the size that it is sold with, as nobody asked a driver.
    """

    index: int
    name: str | None
    capability: tuple[int, int] | None = None
    total: int | None = None
    free: int | None = None
    unified: bool = False
    slice: str | None = None
    nominal: bool = False

    @property
    def uuid(self) -> str | None:
        """What names the slice to CUDA; None for a GPU, and where the driver does not tell."""
        return self.slice if self.slice and self.slice.startswith("MIG") else None

    @property
    def crowding(self) -> int:
        """Tenths of its memory that others hold; 0 where they hold less than one, and where nobody says."""
        if not self.total or self.free is None:
            return 0
        return max(0, 9 - min(9, 10 * self.free // self.total))


@dataclass(frozen=True)
class Cluster:
    """`nodes` machines with the same `slots`, those that are taken first at the head; `link` joins the GPUs of one.

    `together`: every node takes part, as the nodes of a running group do; else a layout may leave some of them idle.
    `left` are indices of GPUs that no layout considers: those in slices beside whole ones, and those under MIG of which
    no slice was cut.
    """

    slots: tuple[Slot, ...]
    nodes: int = 1
    link: Link = "unknown"
    left: tuple[int, ...] = ()
    together: bool = False

    @property
    def size(self) -> int:
        """The number of places."""
        return len(self.slots) * self.nodes

    @cached_property
    def capability(self) -> tuple[int, int] | None:
        """The lowest of its GPUs."""
        return min((s.capability for s in self.slots if s.capability is not None), default=None)

    @cached_property
    def sliced(self) -> bool:
        """Whether any place is a MIG slice."""
        return any(slot.slice for slot in self.slots)

    @property
    def nominal(self) -> bool:
        """Whether the memory of any place is derived from the size that it is sold with."""
        return any(slot.nominal for slot in self.slots)

    @property
    def name(self) -> str:
        """Such as `8 x NVIDIA H200` or `2 nodes of 8 x NVIDIA H100 80GB HBM3`."""
        names = list(dict.fromkeys(slot.name or "unknown GPU" for slot in self.slots))
        kind = "MIG slices of " if self.sliced else ""
        said = f"{len(self.slots)} x {kind}{' / '.join(names)}" if self.slots else "no GPU"
        return f"{self.nodes} nodes of {said}" if self.nodes > 1 else said


def cluster_of(
    gpus: Sequence[Gpu],
    *,
    memory_total: int | None = None,
    memory_available: int | None = None,
) -> Cluster:
    """One machine as it is; `memory_*` are the host's, in bytes, for GPUs that share them.

    GPUs that others use come last, so that a layout on fewer takes the free ones. Slices allow one rank, which gets the
    largest; beside whole GPUs they are left to others. Under MIG a GPU without a slice is no place for any program.
    """
    slots: list[Slot] = []
    uncut = tuple(gpu.index for gpu in gpus if gpu.mig and not gpu.mig_devices)
    for gpu in gpus:
        capability = capability_of(gpu.compute_capability)
        if gpu.index in uncut:
            continue
        if gpu.mig:
            slots += [
                Slot(gpu.index, gpu.name, capability, s.memory_total, s.memory_free, slice=s.uuid or f"{gpu.index}:{n}")
                for n, s in enumerate(gpu.mig_devices)
            ]
        elif gpu.unified_memory:
            slots.append(Slot(gpu.index, gpu.name, capability, memory_total, memory_available, unified=True))
        else:
            slots.append(Slot(gpu.index, gpu.name, capability, _usable(gpu), gpu.memory_free))
    whole = [slot for slot in slots if not slot.slice]
    left = tuple(dict.fromkeys(slot.index for slot in slots if slot.slice)) if whole else ()
    used = sorted(whole, key=lambda s: s.crowding) if whole else sorted(slots, key=lambda s: -(s.total or 0))
    return Cluster(tuple(used), link=_link(gpus), left=(*left, *uncut))


def cluster_of_machine(machine: Machine) -> Cluster:
    """A machine that is not here, as the table of hardware describes it: idle and healthy."""
    gpus = machine.inventory().gpus
    model = machine.model
    shared = model.memory if model.unified else None
    idle = None if shared is None else shared - (model.reserved_mib or 0) * MIB
    made = cluster_of(gpus, memory_total=shared, memory_available=idle)
    slots = tuple(replace(slot, nominal=model.basis == "nominal") for slot in made.slots)
    return Cluster(slots, machine.nodes, made.link)


# What the driver keeps of a GPU that the table does not know: between 0.4 % (B200) and 0.6 % (H100) of those it knows.
_RESERVED = 0.006


def _usable(gpu: Gpu) -> int | None:
    if gpu.memory_total is None:
        return None
    model = find_model(gpu.name or "")
    if model is None or model.reserved_mib is None:
        return int(gpu.memory_total * (1 - _RESERVED))
    return max(0, gpu.memory_total - model.reserved_mib * MIB)


def _link(gpus: Sequence[Gpu]) -> Link:
    """What joins them: NVLink where no GPU has all its links down, of the kind that its model is sold with."""
    model = find_model(gpus[0].name or "") if gpus else None
    up = [gpu.nvlinks_up for gpu in gpus]
    if len(gpus) < 2:
        return "unknown"
    if any(count == 0 for count in up):
        return "pcie"
    if model is None:
        return "nvlink" if all(up) else "unknown"
    return _KINDS[model.nvlink]


_KINDS: dict[str, Link] = {"switch": "nvlink", "bridge": "bridge", "none": "pcie"}

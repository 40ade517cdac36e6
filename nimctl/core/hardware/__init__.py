"""GPU models as data, and machines that are not here: `8xH200`, `2x8xH100`. Pure but for reading the table."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from nimctl.core.errors import NimctlError
from nimctl.core.gpus import Gpu, GpuInventory
from nimctl.core.plain import from_plain
from nimctl.core.yamlfile import read_yaml

SCHEMA = "nimctl.hardware/1"
MIB = 2**20

_SHAPE = re.compile(r"(?:(\d{1,4})x)?(?:(\d{1,4})x)?([A-Za-z][\w .\-]*)")


@dataclass(frozen=True)
class GpuModel:
    """One product. Memory in MiB as NVML reports it, None where no published output was found (see `link`).

    `reserved_mib` is what the driver keeps of it. `gpus_per_node` is the usual machine.
    """

    name: str
    aliases: tuple[str, ...]
    compute_capability: str
    form: Literal["sxm", "pcie", "superchip", "integrated"]
    nvlink: Literal["switch", "bridge", "none"]
    gpus_per_node: int
    memory_mib: int | None = None
    reserved_mib: int | None = None
    link: str | None = None


@dataclass(frozen=True)
class Machine:
    """`nodes` machines with `gpus` GPUs of one model each."""

    nodes: int
    gpus: int
    model: GpuModel

    @property
    def name(self) -> str:
        """As it is typed: `8xH200`, `2x8xH100`."""
        nodes = f"{self.nodes}x" if self.nodes > 1 else ""
        return f"{nodes}{self.gpus}x{self.model.aliases[0]}"

    def inventory(self) -> GpuInventory:
        """One node as NVML would describe it: idle, healthy, all links up. Without driver and CUDA version."""
        model = self.model
        total = model.memory_mib * MIB if model.memory_mib is not None else None
        free = total - (model.reserved_mib or 0) * MIB if total is not None else None
        gpus = tuple(
            Gpu(
                index=index,
                name=model.name,
                compute_capability=model.compute_capability,
                memory_total=total,
                memory_free=free,
                unified_memory=model.form == "integrated",
                mig=False,
            )
            for index in range(self.gpus)
        )
        return GpuInventory("ok", gpus=gpus)


@dataclass(frozen=True)
class _Table:
    schema: str
    gpus: tuple[GpuModel, ...]


@cache
def models() -> tuple[GpuModel, ...]:
    """Every model of the table. Raises `config-invalid` for a broken table."""
    path = Path(str(resources.files(__package__) / "table.yaml"))
    try:
        table = from_plain(_Table, read_yaml(path))
        if table.schema != SCHEMA:
            raise ValueError(f"schema is {table.schema!r}, not {SCHEMA!r}")
    except ValueError as error:
        raise NimctlError(
            "config-invalid", f"{path} is not valid", cause=str(error), fix="Install nimctl again."
        ) from error
    return table.gpus


def find(name: str) -> GpuModel | None:
    """The model of this name or alias, in any case, with or without "NVIDIA"; None for an unknown one."""
    return _by_name().get(_key(name))


def parse_machine(text: str) -> Machine:
    """The machine that `--hardware` names: `H200` (the usual node), `8xH200`, `2x8xH100` (nodes x GPUs).

    Raises `gpu-spec-invalid`, for an unknown model with the nearest names.
    """
    shape = _SHAPE.fullmatch(text.strip())
    if not shape:
        raise _invalid(text, "it is not of the form 8xH200, or 2x8xH100 for two machines", "Write it like that.")
    first, second, name = shape.groups()
    model = find(name)
    if model is None:
        known = {alias.lower(): alias for gpu in models() for alias in gpu.aliases}
        near = [known[match] for match in get_close_matches(name.lower(), known, n=4, cutoff=0.5)]
        hint = f"Did you mean {', '.join(near)}?" if near else "Name one such as H100, H200, B200, GB200 or L40S."
        raise _invalid(text, f"no GPU model called {name!r} is known", hint)
    nodes, gpus = (int(first), int(second)) if second else (1, int(first) if first else model.gpus_per_node)
    if nodes < 1 or gpus < 1:
        raise _invalid(text, "a machine has at least one GPU", "Write it like 8xH200.")
    return Machine(nodes, gpus, model)


def _invalid(text: str, cause: str, fix: str) -> NimctlError:
    return NimctlError("gpu-spec-invalid", f"{text[:60]!r} names no machine", cause=cause, fix=fix)


def _key(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower().removeprefix("nvidia").strip())


@cache
def _by_name() -> dict[str, GpuModel]:
    found: dict[str, GpuModel] = {}
    for model in models():
        for name in (*model.aliases, model.name):
            found.setdefault(_key(name), model)
    return found

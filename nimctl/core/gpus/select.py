"""Which GPUs a `--gpus` value means. Pure."""

from nimctl.core.errors import NimctlError
from nimctl.core.gpus.model import Gpu, GpuInventory

# https://docs.nvidia.com/deploy/driver-persistence/
HANGS = (
    "Turn persistence on (`sudo nvidia-smi -pm 1`) and try again; if that hangs too, look for Xid errors with "
    "`sudo dmesg | grep -i NVRM`, then reboot."
)


_LONGEST_COUNT = 4  # digits; no host has 10,000 GPUs, and Python refuses to read thousands of digits
_SHOWN = 60  # characters of what was asked for


def count_of(spec: str) -> int | None:
    """The count that a `--gpus` value is, 0 included; None for a value that names GPUs or is `all`."""
    given = spec.strip().strip("\"'")
    plain = given.isascii() and given.isdecimal() and len(given) <= _LONGEST_COUNT
    return int(given) if plain else None


def select(inventory: GpuInventory, spec: str) -> tuple[Gpu, ...]:
    """The GPUs that a `--gpus` value means, as docker reads it: `all`, a count, indices `0,3`, or UUIDs.

    `device=` in front is accepted as docker accepts it. Raises `gpu-missing` when the host has none to choose from
    and `gpu-spec-invalid` when the value asks for GPUs that are not there.
    """
    healthy = tuple(g for g in inventory.gpus if g.error is None)
    if not healthy and inventory.state == "hangs":
        raise NimctlError(
            "gpu-missing",
            f"--gpus {_shortened(spec)} was asked for, but the NVIDIA driver did not answer in time",
            cause=inventory.detail or "NVML was asked, and said nothing",
            fix=HANGS,
        )
    if not healthy:
        raise NimctlError(
            "gpu-missing",
            f"--gpus {_shortened(spec)} was asked for, but no GPU answers",
            cause=inventory.detail or ("every GPU reports an error" if inventory.gpus else "NVML lists no GPU"),
            fix="Run `nimctl doctor` to see why; the demo model also runs without GPU: `nimctl run demo --gpus none`.",
        )
    given = spec.strip().strip("\"'")  # docker's own form is '"device=0,3"', quotes and all
    wanted = given.removeprefix("device=")
    if wanted == "all":
        return healthy
    count, short = count_of(spec), _shortened(spec)
    if count is not None:
        return _first(healthy, count, short)
    return _named(inventory, [part.strip() for part in wanted.split(",")], short)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _first(healthy: tuple[Gpu, ...], count: int, spec: str) -> tuple[Gpu, ...]:
    if not 1 <= count <= len(healthy):
        raise NimctlError(
            "gpu-spec-invalid",
            f"--gpus {spec} asks for {count} GPUs, this host has {len(healthy)}",
            cause=f"NVML lists {len(healthy)} healthy GPU{'s' if len(healthy) != 1 else ''}",
            fix=f"Ask for 1 to {len(healthy)}, for `all`, or name them: `--gpus device=0`.",
        )
    return healthy[:count]


def _named(inventory: GpuInventory, names: list[str], spec: str) -> tuple[Gpu, ...]:
    by_name = {str(g.index): g for g in inventory.gpus} | {g.uuid: g for g in inventory.gpus if g.uuid}
    chosen: list[Gpu] = []
    for name in names:
        gpu = by_name.get(name)
        if gpu is None or gpu.error is not None or gpu in chosen:
            why = "is named twice" if gpu in chosen else (gpu.error if gpu else "does not exist on this host")
            raise NimctlError(
                "gpu-spec-invalid",
                f"--gpus {spec}: GPU {_shortened(name)!r} {why}",
                cause=f"this host has GPUs {', '.join(str(g.index) for g in inventory.gpus if g.error is None)}",
                fix="Name GPUs by index or UUID, once each; `nimctl doctor` lists them.",
            )
        chosen.append(gpu)
    return tuple(chosen)

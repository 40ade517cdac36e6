"""The GPUs of this machine, read through NVML. The only importer of `pynvml` (package `nvidia-ml-py`).

NVML is asked and never `nvidia-smi`: the library is what the container will load as well, and its answers are typed.
An answer that cannot be had is None, never 0, and one GPU that fails does not hide the others.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pynvml

from nimctl.core.errors import NimctlError

T = TypeVar("T")

State = Literal["ok", "no-library", "driver-not-loaded", "mismatch", "no-permission", "failed"]


@dataclass(frozen=True)
class GpuProcess:
    """A compute process that holds memory of a GPU: host pid and bytes (None where the driver will not say)."""

    pid: int
    memory: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML describes it. Memory in bytes; when it stopped answering `error` is set and the rest unknown."""

    index: int
    uuid: str | None = None
    name: str | None = None
    pci_id: str | None = None
    compute_capability: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    mig: bool | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    compute_mode: str | None = None
    persistence: bool | None = None
    nvlinks_up: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class GpuInventory:
    """What NVML said: `state` tells whether it could be asked at all, `detail` why not. `cuda` is like "13.0"."""

    state: State
    detail: str | None = None
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()


# Every NVML error class and what it means for the inventory as a whole; a test in test_core_contracts.py
# fails when the installed pynvml knows one that is missing here.
INIT_STATES: Mapping[str, State] = {
    "LibraryNotFound": "no-library",
    "FunctionNotFound": "no-library",
    "DriverNotLoaded": "driver-not-loaded",
    "LibRmVersionMismatch": "mismatch",
    "NoPermission": "no-permission",
    **dict.fromkeys(
        (
            "AlreadyInitialized", "ArgumentVersionMismatch", "CorruptedInforom", "Deprecated", "FreqNotSupported",
            "GpuIsLost", "GpuNotFound", "InUse", "InsufficientPower", "InsufficientResources", "InsufficientSize",
            "InvalidArgument", "InvalidState", "IrqIssue", "Memory", "NoData", "NotFound", "NotReady", "NotSupported",
            "OperatingSystem", "ResetRequired", "ResetTypeNotSupported", "Timeout", "Uninitialized", "Unknown",
            "VgpuEccNotSupported",
        ),
        "failed",
    ),
}  # fmt: skip

_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_UNKNOWN)
_COMPUTE_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}


def read_inventory() -> GpuInventory:
    """Ask NVML for the driver and every GPU. Never raises; takes milliseconds on a healthy host."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuInventory(_state_of(error), detail=str(error))
    try:
        cuda = _maybe(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        count = pynvml.nvmlDeviceGetCount()
        return GpuInventory(
            "ok",
            driver=_text(_maybe(pynvml.nvmlSystemGetDriverVersion)),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            gpus=tuple(_read_gpu(i) for i in range(count)),
        )
    except pynvml.NVMLError as error:
        return GpuInventory(_state_of(error), detail=str(error))
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _state_of(error: Exception) -> State:
    return INIT_STATES.get(type(error).__name__.removeprefix("NVMLError_"), "failed")


def _read_gpu(index: int) -> Gpu:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(pynvml.nvmlDeviceGetName(handle))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        if error.value in _LOST:
            return Gpu(index, error=f"lost: {error}")
        return Gpu(index, error=str(error))
    capability = _maybe(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    pci = _maybe(pynvml.nvmlDeviceGetPciInfo, handle)
    mig = _maybe(pynvml.nvmlDeviceGetMigMode, handle)
    ecc = _maybe(pynvml.nvmlDeviceGetEccMode, handle)
    mode = _maybe(pynvml.nvmlDeviceGetComputeMode, handle)
    persistence = _maybe(pynvml.nvmlDeviceGetPersistenceMode, handle)
    return Gpu(
        index=index,
        uuid=_text(_maybe(pynvml.nvmlDeviceGetUUID, handle)),
        name=name,
        pci_id=_text(pci.busId) if pci else None,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        memory_total=memory.total,
        memory_free=memory.free,
        mig=bool(mig[0]) if mig else None,
        ecc=bool(ecc[0]) if ecc else None,
        ecc_uncorrected=_maybe(
            pynvml.nvmlDeviceGetTotalEccErrors,
            handle,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        compute_mode=_COMPUTE_MODES.get(mode, str(mode)) if mode is not None else None,
        persistence=bool(persistence) if persistence is not None else None,
        nvlinks_up=_nvlinks_up(handle),
        processes=_processes(handle),
    )


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    running = _maybe(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    return tuple(GpuProcess(p.pid, p.usedGpuMemory) for p in running)


def _nvlinks_up(handle: Any) -> int | None:
    """How many NVLinks are active; None where the GPU has none or will not say."""
    states = [_maybe(pynvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(pynvml.NVML_NVLINK_MAX_LINKS)]
    known = [s for s in states if s is not None]
    return sum(1 for s in known if s == pynvml.NVML_FEATURE_ENABLED) if known else None


def _maybe(call: Callable[..., T], *args: Any) -> T | None:
    """The answer of an optional NVML call; None when this driver or GPU does not give it."""
    try:
        return call(*args)
    except (pynvml.NVMLError, AttributeError):  # AttributeError: older nvidia-ml-py without this function
        return None


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def select(inventory: GpuInventory, spec: str) -> tuple[Gpu, ...]:
    """The GPUs that a `--gpus` value means, as docker reads it: `all`, a count, indices `0,3`, or UUIDs.

    `device=` in front is accepted as docker accepts it. Raises `gpu-missing` when the host has none to choose from
    and `gpu-spec-invalid` when the value asks for GPUs that are not there.
    """
    healthy = tuple(g for g in inventory.gpus if g.error is None)
    if not healthy:
        raise NimctlError(
            "gpu-missing",
            f"--gpus {spec} was asked for, but no GPU answers",
            cause=inventory.detail or ("every GPU reports an error" if inventory.gpus else "NVML lists no GPU"),
            fix="Run `nimctl doctor` to see why; the demo model also runs without GPU: `nimctl run demo --gpus none`.",
        )
    given = spec.strip().strip("\"'")  # docker's own form is '"device=0,3"', quotes and all
    wanted = given.removeprefix("device=")
    if wanted == "all":
        return healthy
    if "," not in wanted and wanted.isdigit() and not given.startswith("device="):
        return _first(healthy, int(wanted), spec)
    return _named(inventory, [part.strip() for part in wanted.split(",")], spec)


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
                f"--gpus {spec}: GPU {name!r} {why}",
                cause=f"this host has GPUs {', '.join(str(g.index) for g in inventory.gpus if g.error is None)}",
                fix="Name GPUs by index or UUID, once each; `nimctl doctor` lists them.",
            )
        chosen.append(gpu)
    return tuple(chosen)

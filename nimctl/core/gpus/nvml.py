"""The GPUs of this machine, read through NVML. The only importer of `pynvml` (package `nvidia-ml-py`).

NVML is asked and never `nvidia-smi`: the library is what the container will load as well, and its answers are typed.
An answer that cannot be had is None, never 0, and one GPU that fails does not hide the others.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import pynvml

from nimctl.core.gpus.model import Gpu, GpuInventory, GpuProcess, State

T = TypeVar("T")

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

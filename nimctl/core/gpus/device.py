"""One GPU, asked through NVML."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ctypes import byref
from functools import partial
from typing import Any, TypeVar

import pynvml

from nimctl.core.gpus.model import Fabric, Gpu, GpuProcess, MigDevice
from nimctl.core.gpus.words import ARCHITECTURES, COMPUTE_MODES, fabric_of

T = TypeVar("T")

# What a GPU answers that is gone, whichever question it is asked.
_GONE = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
# An older driver answers one of these to a structure or a function that is newer than itself.
_OLDER = (
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
)
# No answer: an error, a name that is no text, or (AttributeError, and a class of its own) a function that is too new
# for the installed nvidia-ml-py or for the driver.
_NO_ANSWER = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, AttributeError, ValueError)

_MIG_DEVICES = 7  # of one GPU, where it does not say
_PAGE_CAUSES = 2  # nvmlPageRetirementCause_t: several single-bit errors, one double-bit error


def read_gpu(index: int) -> Gpu:
    """One GPU; with `error` when it cannot be asked at all, or stops answering while it is asked."""
    uuid = name = pci_id = None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        pci_id = _pci_id(handle)
        uuid = text_of(_maybe(pynvml.nvmlDeviceGetUUID, handle))
        name = _name(handle)
        return Gpu(
            index=index,
            uuid=uuid,
            name=name,
            pci_id=pci_id,
            **_kind(handle),
            **_memory(handle),
            **_mig(handle),
            **_ecc(handle),
            **_worn_memory(handle),
            **_modes(handle),
            **_bus(handle),
            **_nvlinks(handle),
            fabric=_fabric(handle),
            processes=_processes(handle),
        )
    except pynvml.NVMLError as error:
        lost = error.value in (*_GONE, pynvml.NVML_ERROR_UNKNOWN)
        return Gpu(index, uuid, name, pci_id, error=f"lost: {error}" if lost else str(error))


def _name(handle: Any) -> str | None:
    with suppress(ValueError):  # it answers, though not with text
        return text_of(pynvml.nvmlDeviceGetName(handle))
    return None


def _pci_id(handle: Any) -> str | None:
    pci = _maybe(pynvml.nvmlDeviceGetPciInfo, handle)
    return None if pci is None else text_of(pci.busId)


def _kind(handle: Any) -> dict[str, Any]:
    capability = _maybe(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return {
        "architecture": ARCHITECTURES.get(_maybe(pynvml.nvmlDeviceGetArchitecture, handle) or 0),
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
    }


def _memory(handle: Any) -> dict[str, Any]:
    """Its memory. A GPU that shares the host's has none of its own to tell of, and is well.

    NVML answers NOT_SUPPORTED there, on GB10 (https://github.com/XuehaiPan/nvitop/pull/208) as on Jetson Thor
    (https://github.com/nvidia-cosmos/cosmos-reason1/issues/61). Under MIG a user who is not root gets NO_PERMISSION
    for the whole GPU, which is well, too.
    """
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return {"unified_memory": True}
        if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
            return {}
        raise
    if not memory.total:
        return {"unified_memory": True}
    return {"memory_total": memory.total, "memory_free": memory.free, "unified_memory": False}


def _mig(handle: Any) -> dict[str, Any]:
    mode = _maybe(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None:
        return {}
    current, pending = (bool(value) for value in mode)
    return {"mig": current, "mig_pending": pending, "mig_devices": tuple(_mig_devices(handle)) if current else ()}


def _mig_devices(handle: Any) -> Iterator[MigDevice]:
    count = _maybe(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle)
    for index in range(_MIG_DEVICES if count is None else count):
        part = _maybe(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if part is None:  # places between slices may be empty
            continue
        memory = _maybe(pynvml.nvmlDeviceGetMemoryInfo, part)
        yield MigDevice(
            uuid=text_of(_maybe(pynvml.nvmlDeviceGetUUID, part)),
            name=text_of(_maybe(pynvml.nvmlDeviceGetName, part)),
            memory_total=memory.total if memory else None,
            memory_free=memory.free if memory else None,
            gpu_instance=_maybe(pynvml.nvmlDeviceGetGpuInstanceId, part),
            compute_instance=_maybe(pynvml.nvmlDeviceGetComputeInstanceId, part),
        )


def _ecc(handle: Any) -> dict[str, Any]:
    mode = _maybe(pynvml.nvmlDeviceGetEccMode, handle)
    total = partial(_maybe, pynvml.nvmlDeviceGetTotalEccErrors, handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    return {
        "ecc": bool(mode[0]) if mode else None,
        "ecc_pending": bool(mode[1]) if mode else None,
        "ecc_uncorrected": total(pynvml.NVML_VOLATILE_ECC),
        "ecc_uncorrected_aggregate": total(pynvml.NVML_AGGREGATE_ECC),
    }


def _worn_memory(handle: Any) -> dict[str, Any]:
    """Rows that were remapped (Ampere and later); on older GPUs, which know no such thing, pages that were retired."""
    rows = _maybe(pynvml.nvmlDeviceGetRemappedRows, handle)
    if rows is not None:
        corrected, uncorrected, pending, failed = rows
        return {
            "rows_remapped": corrected + uncorrected,
            "row_remap_pending": bool(pending),
            "row_remap_failed": bool(failed),
        }
    pages = [_maybe(pynvml.nvmlDeviceGetRetiredPages, handle, cause) for cause in range(_PAGE_CAUSES)]
    pending = _maybe(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
    return {
        "pages_retired": None if None in pages else sum(len(p) for p in pages if p is not None),
        "page_retirement_pending": _flag(pending),
    }


def _modes(handle: Any) -> dict[str, Any]:
    mode = _maybe(pynvml.nvmlDeviceGetComputeMode, handle)
    return {
        "compute_mode": None if mode is None else COMPUTE_MODES.get(mode, str(mode)),
        "persistence": _flag(_maybe(pynvml.nvmlDeviceGetPersistenceMode, handle)),
    }


def _bus(handle: Any) -> dict[str, Any]:
    return {
        "pcie_generation": _maybe(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        "pcie_generation_max": _maybe(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "pcie_width": _maybe(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        "pcie_width_max": _maybe(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    }


def _nvlinks(handle: Any) -> dict[str, Any]:
    """How many NVLinks are up, and down. A GPU without any says so at the first, and at the one behind its last."""
    up = down = 0
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
        except pynvml.NVMLError as error:
            if error.value in _GONE:
                raise
            if error.value == pynvml.NVML_ERROR_INVALID_ARGUMENT or not up + down:
                break
            continue
        up, down = up + (state == pynvml.NVML_FEATURE_ENABLED), down + (state != pynvml.NVML_FEATURE_ENABLED)
    return {"nvlinks_up": up, "nvlinks_down": down} if up + down else {}


def _fabric(handle: Any) -> Fabric | None:
    """By the newest of the three forms that both nvidia-ml-py and the driver know."""
    for call, form in (
        ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v3_t"),
        ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t"),
        ("nvmlDeviceGetGpuFabricInfo", "c_nvmlGpuFabricInfo_t"),
    ):
        try:
            info = getattr(pynvml, form)()
            getattr(pynvml, call)(handle, byref(info))
        except AttributeError:
            continue
        except pynvml.NVMLError as error:
            if error.value in _GONE:
                raise
            if error.value in _OLDER:
                continue
            return None
        return fabric_of(
            state=info.state,
            status=info.status,
            cluster=bytes(info.clusterUuid),
            clique=info.cliqueId,
            health_mask=getattr(info, "healthMask", 0),
        )
    return None


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Who holds memory of it. A process that both computes and draws is listed as computing."""
    compute: Sequence[Any] = _maybe(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) or ()
    graphics: Sequence[Any] = _maybe(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or ()
    found = {p.pid: GpuProcess(p.pid, p.usedGpuMemory, graphics=True) for p in graphics}
    found |= {p.pid: GpuProcess(p.pid, p.usedGpuMemory) for p in compute}
    return tuple(found[pid] for pid in sorted(found))


def _maybe(call: Callable[..., T], *args: Any) -> T | None:
    """The answer to an optional question, None where this driver or GPU gives none. Raises when the GPU is gone."""
    try:
        return call(*args)
    except _NO_ANSWER as error:
        if isinstance(error, pynvml.NVMLError) and error.value in _GONE:
            raise
        return None


def known(call: Callable[..., T], *args: Any) -> T | None:
    """The answer to a question about more than one GPU, or None."""
    try:
        return call(*args)
    except _NO_ANSWER:
        return None


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def text_of(value: str | bytes | None) -> str | None:
    """A text of NVML, which comes as bytes from some versions of nvidia-ml-py."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value

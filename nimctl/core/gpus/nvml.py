"""The GPUs of this machine, read through NVML (`pynvml` of the package `nvidia-ml-py`).

NVML is asked and never `nvidia-smi`: the library is what the container will load as well, and its answers are typed.
An answer that cannot be had is None, never 0, and one GPU that fails or hangs does not hide the others.
Names, units and errors of the calls: https://docs.nvidia.com/deploy/nvml-api/
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import combinations

import pynvml

from nimctl.core.gpus.device import known, read_gpu, text_of
from nimctl.core.gpus.model import Gpu, GpuInventory, GpuLink, State
from nimctl.core.gpus.stalls import ask_each
from nimctl.core.gpus.words import ANCESTORS, P2P

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

LINKED_GPUS = 16  # GPUs among which links are asked for: 120 pairs; no host has more on one board
_P2P_READ = 0  # NVML_P2P_CAPS_INDEX_READ, which pynvml declares as a tuple


def read_inventory(until: float | None = None) -> GpuInventory:
    """Ask NVML for the driver and every GPU. Never raises; takes milliseconds on a healthy host.

    With `until` (of `time.monotonic`) a GPU that hangs gets an `error`, as one that is lost, and the others are still
    read. Only the start of NVML itself, which asks all GPUs, may then take longer.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuInventory(_state_of(error), detail=str(error))
    hangs = False
    try:
        cuda = known(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        driver = text_of(known(pynvml.nvmlSystemGetDriverVersion))
        answers = ask_each([partial(read_gpu, i) for i in range(pynvml.nvmlDeviceGetCount())], _most_of(until))
        hangs = None in answers
        gpus = tuple(g or Gpu(i, error="no answer in time: NVML hangs") for i, g in enumerate(answers))
        pairs = list(combinations([g.index for g in gpus[:LINKED_GPUS] if g.error is None], 2))
        links = ask_each([partial(_read_link, *pair) for pair in pairs], until)
        hangs = hangs or None in links
        return GpuInventory(
            "ok",
            driver=driver,
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            gpus=gpus,
            links=tuple(link or GpuLink(*pair) for pair, link in zip(pairs, links, strict=True)),
        )
    except pynvml.NVMLError as error:
        return GpuInventory(_state_of(error), detail=str(error))
    finally:
        if not hangs:  # it would wait for the call that hangs
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def _most_of(until: float | None) -> float | None:
    """An earlier end that leaves time for the links when a GPU hangs."""
    return None if until is None else until - 0.1 * max(0.0, until - time.monotonic())


def _state_of(error: Exception) -> State:
    return INIT_STATES.get(type(error).__name__.removeprefix("NVMLError_"), "failed")


def _read_link(first: int, second: int) -> GpuLink:
    """How two GPUs reach each other. Which of them is lost, if one is, it does not tell: then nothing is known."""
    one, other = (known(pynvml.nvmlDeviceGetHandleByIndex, index) for index in (first, second))
    if one is None or other is None:
        return GpuLink(first, second)
    level = known(pynvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
    status = known(pynvml.nvmlDeviceGetP2PStatus, one, other, _P2P_READ)
    return GpuLink(
        first,
        second,
        ancestor=None if level is None else ANCESTORS.get(level, str(level)),
        p2p=None if status is None else status == pynvml.NVML_P2P_STATUS_OK,
        p2p_status=None if status is None else P2P.get(status, str(status)),
    )

"""Simulated GPU hosts as the JSON that nvml_double.c reads.

    driver_version, nvml_version, cuda_driver_version (13000 = 13.0)
    visible_by_device_nodes   true: only GPUs whose /dev/nvidia<minor> exists (containers)
    faults                    {call without _v2/_v3, or "*": {"error": NVML code, "hang_ms": milliseconds}}
    gpus[]                    name uuid serial minor pci_bus_id pci_device_id brand architecture
                              memory_total memory_reserved memory_used bar1_total            (bytes)
                              compute_capability_major compute_capability_minor cores
                              ecc_mode ecc_{corrected,uncorrected}_{volatile,aggregate}
                              remapped_{corrected,uncorrected} remap_pending remap_failed
                              compute_mode persistence_mode power_mw power_limit_mw temperature utilization_{gpu,memory}
                              mig_mode mig_max mig_devices[] nvlinks nvlinks_up nvlink_version numa_node
                              fabric {state, status, clique, cluster (32 hex digits), health_mask}
                              processes[] {pid, memory_used}     faults as above

Memory sizes are what the driver reports, in MiB as nvidia-smi prints them: H100 80GB HBM3 81559, H200 143771, B200
183359 (https://github.com/sgl-project/sglang/issues/27487), GB200 189471. Error codes: nvmlReturn_t,
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

MIB = 1 << 20
NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, VERSION_MISMATCH = 4, 9, 15, 18
FABRIC_IN_PROGRESS, FABRIC_COMPLETED = 2, 3
_NAMESPACE = uuid.UUID("6d0c8e5e-3d2f-5b57-9c1c-0f6a3c1f7a10")  # any constant: UUIDs only have to stay the same
# Buses of an eight-GPU HGX board; larger hosts count PCI domains.
_BUSES = (0x19, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB)


@dataclass(frozen=True)
class Model:
    """What is the same for every GPU of a product. Memory in MiB, power in W."""

    name: str
    memory: int
    reserved: int
    compute: tuple[int, int]
    architecture: int
    pci_device_id: int
    cores: int
    power: int
    nvlink_version: int


MODELS = {
    "H100": Model("NVIDIA H100 80GB HBM3", 81559, 551, (9, 0), 9, 0x233010DE, 16896, 700, 6),
    "H200": Model("NVIDIA H200", 143771, 604, (9, 0), 9, 0x233510DE, 16896, 700, 6),
    "B200": Model("NVIDIA B200", 183359, 703, (10, 0), 10, 0x290110DE, 18944, 1000, 7),
    "GB200": Model("NVIDIA GB200", 189471, 703, (10, 0), 10, 0x294110DE, 18944, 1200, 7),
}


def host(models: list[str], *, driver: str = "580.95.05", cuda: int = 13000) -> Json:
    """A healthy host with these GPUs, in this order."""
    return {
        "driver_version": driver,
        "nvml_version": f"{cuda // 1000}.{driver}",
        "cuda_driver_version": cuda,
        "gpus": [_gpu(MODELS[model], model, index, len(models)) for index, model in enumerate(models)],
    }


def profile(name: str) -> Json:
    """The host of this name: `8xH200` and the like up to 99, or one of SPECIAL. Raises KeyError for another name."""
    if name in SPECIAL:
        return SPECIAL[name]()
    shape = re.fullmatch(r"([1-9]\d?)x(\w+)", name)
    if not shape or shape[2] not in MODELS:
        raise KeyError(name)
    return host([shape[2]] * int(shape[1]))


def names() -> list[str]:
    """The profiles worth listing; `profile` knows other counts as well."""
    return [f"{n}x{model}" for model in ("H200", "H100", "B200") for n in (1, 2, 8)] + ["72xGB200", *SPECIAL]


def _gpu(model: Model, kind: str, index: int, count: int) -> Json:
    domain, bus = divmod(index, len(_BUSES))
    return {
        "name": model.name,
        "uuid": f"GPU-{uuid.uuid5(_NAMESPACE, f'{kind}/{index}')}",
        "serial": f"165{index:010d}",
        "minor": index,
        "pci_bus_id": f"{domain:08X}:{_BUSES[bus]:02X}:00.0",
        "pci_device_id": model.pci_device_id,
        "brand": 14,  # NVML_BRAND_NVIDIA
        "architecture": model.architecture,
        "memory_total": model.memory * MIB,
        "memory_reserved": model.reserved * MIB,
        "memory_used": 0,
        "bar1_total": (131072 if model.memory < 131072 else 262144) * MIB,
        "compute_capability_major": model.compute[0],
        "compute_capability_minor": model.compute[1],
        "cores": model.cores,
        "ecc_mode": 1,
        "mig_mode": 0,
        "mig_max": 7,
        "compute_mode": 0,
        "persistence_mode": 1,
        "performance_state": 0,
        "pcie_generation": 5,
        "pcie_width": 16,
        "temperature": 31,
        "power_mw": 75000,
        "power_limit_mw": model.power * 1000,
        "numa_node": 0 if index < (count + 1) // 2 else 1,
        "nvlinks": 18,
        "nvlinks_up": 18 if count > 1 else 0,
        "nvlink_version": model.nvlink_version,
        "fabric": {"state": FABRIC_COMPLETED, "status": 0, "clique": 0},
    }


def _init_fails(error: int) -> Json:
    return {**host(["H200"] * 2), "faults": {"nvmlInit": {"error": error}}}


def _changed(base: Json, index: int, **values: Any) -> Json:
    base["gpus"][index] |= values
    return base


def _mig() -> Json:
    """Two H100: the first cut into seven 1g.10gb instances, the second whole."""
    base = host(["H100"] * 2)
    parts = [
        {
            "name": f"{MODELS['H100'].name} MIG 1g.10gb",
            "uuid": f"MIG-{uuid.uuid5(_NAMESPACE, f'mig/{part}')}",
            "memory_total": 9984 * MIB,
            "memory_used": 0,
            "gpu_instance": 7 + part,
            "compute_instance": 0,
            "multiprocessors": 16,
            "slices": 1,
        }
        for part in range(7)
    ]
    return _changed(base, 0, mig_mode=1, mig_devices=parts)


SPECIAL: dict[str, Callable[[], Json]] = {
    "mixed": lambda: host(["H100", "H200"]),
    "mig": _mig,
    "lost": lambda: _changed(host(["H200"] * 8), 5, faults={"*": {"error": GPU_IS_LOST}}),
    "mismatch": lambda: _init_fails(VERSION_MISMATCH),
    "not-loaded": lambda: _init_fails(DRIVER_NOT_LOADED),
    "no-permission": lambda: _init_fails(NO_PERMISSION),
    "driver-550": lambda: host(["H200"] * 2, driver="550.163.01", cuda=12040),
    "busy": lambda: _changed(
        host(["H200"] * 2), 1, memory_used=120_000 * MIB, processes=[{"pid": 4242, "memory_used": 119_000 * MIB}]
    ),
    "ecc": lambda: _changed(
        host(["H200"] * 2), 0, ecc_uncorrected_volatile=3, ecc_uncorrected_aggregate=9, remap_pending=1
    ),
    "fabric-down": lambda: {
        **(base := host(["H200"] * 8)),
        "gpus": [gpu | {"fabric": {"state": FABRIC_IN_PROGRESS, "status": 0, "clique": 0}} for gpu in base["gpus"]],
    },
}

"""Simulated GPU hosts as the JSON that nvml_double.c reads.

    driver_version, nvml_version, cuda_driver_version (13000 = 13.0)
    visible_by_device_nodes   true: only GPUs whose /dev/nvidia<minor> exists (containers)
    faults                    {call without _v2/_v3, or "*": fault}, of the host (all its GPUs as well) or of one GPU
    gpus[]                    name uuid serial minor pci_bus_id pci_device_id brand architecture
                              memory_total memory_reserved memory_used bar1_total            (bytes)
                              compute_capability_major compute_capability_minor cores
                              ecc_mode ecc_mode_pending ecc_{corrected,uncorrected}_{volatile,aggregate}
                              remapped_{corrected,uncorrected} remap_pending remap_failed        (Ampere and later)
                              retired_{single,double}_bit (lists of addresses) retirement_pending  (before Ampere)
                              compute_mode persistence_mode power_mw power_limit_mw temperature utilization_{gpu,memory}
                              mig_mode mig_mode_pending mig_max mig_devices[] nvlinks nvlinks_up nvlink_version
                              pcie_{generation,width}, and the same with _max
                              numa_node (of its processors) memory_numa_node (its own memory's, on Grace)
                              addressing_mode (0 none, 1 HMM, 2 ATS) p2p_status display_active clock_mhz
                              fabric {state, status, clique, cluster (32 hex digits), health_mask}
                              {,graphics_,mps_}processes[] {pid, memory_used}     faults
    mig_devices[]             name uuid memory_total memory_used gpu_instance compute_instance multiprocessors slices
                              processes[]

A key that is left out makes its call answer NOT_SUPPORTED, as hardware without the feature does.

A fault is {"error": NVML code, "hang_ms": milliseconds, "after": k, "times": n}, each of which may be left out: the
call first hangs, then fails. The first k such calls (of this GPU) are spared, and with "times" those behind the n that
fail. So {"*": {"error": 15, "after": 10}} is a GPU that is lost while it is read, {"nvmlDeviceGetName": {"error": 10,
"times": 1}} a timeout that passes. Counting starts anew when NVML does.

Sources: memory as nvidia-smi prints it in MiB: H100 80GB HBM3 81559, H200 143771, B200 183359
(https://github.com/sgl-project/sglang/issues/27487), GB200 189471, L40S 46068
(https://github.com/akash-network/provider-configs/pull/99), slices of A100-SXM4-80GB
(https://github.com/XuehaiPan/nvitop/pull/8). GB10 tells of no memory, and of a PCIe x1 link of the first generation
(https://github.com/XuehaiPan/nvitop/pull/208, https://github.com/Syllo/nvtop/issues/426). Device ids:
https://github.com/NVIDIA/open-gpu-kernel-modules. Error codes: nvmlReturn_t,
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
_AMPERE = 7
_NAMESPACE = uuid.UUID("6d0c8e5e-3d2f-5b57-9c1c-0f6a3c1f7a10")  # any constant: UUIDs only have to stay the same
# Buses of an eight-GPU HGX board; larger hosts count PCI domains.
_BUSES = (0x19, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB)


@dataclass(frozen=True)
class Model:
    """What is the same for every GPU of a product. Memory in MiB (None: it shares the host's), power in W."""

    name: str
    memory: int | None
    reserved: int
    compute: tuple[int, int]
    architecture: int
    pci_device_id: int
    cores: int
    power: int
    nvlinks: int = 0
    nvlink_version: int = 0
    pcie: tuple[int, int] = (5, 16)
    """Generation and width at most."""
    pcie_idle: int | None = None
    """The generation that it falls back to while it has nothing to do."""
    mig_max: int = 0
    fabric: bool = False
    """It joins a fabric of NVLink switches."""
    addressing: int = 1


_RTX_PRO = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
_HGX: Json = {"nvlinks": 18, "mig_max": 7, "fabric": True}
MODELS = {
    "H100": Model("NVIDIA H100 80GB HBM3", 81559, 551, (9, 0), 9, 0x233010DE, 16896, 700, nvlink_version=6, **_HGX),
    "H200": Model("NVIDIA H200", 143771, 604, (9, 0), 9, 0x233510DE, 16896, 700, nvlink_version=6, **_HGX),
    "B200": Model("NVIDIA B200", 183359, 703, (10, 0), 10, 0x290110DE, 18944, 1000, nvlink_version=7, **_HGX),
    "GB200": Model(
        "NVIDIA GB200", 189471, 703, (10, 0), 10, 0x294110DE, 18944, 1200, nvlink_version=7, addressing=2, **_HGX
    ),
    "A100": Model("NVIDIA A100-SXM4-80GB", 81920, 633, (8, 0), 7, 0x20B210DE, 6912, 400, 12, 4, (4, 16), mig_max=7),
    "L40S": Model("NVIDIA L40S", 46068, 594, (8, 9), 8, 0x26B910DE, 18176, 350, pcie=(4, 16), pcie_idle=1),
    "RTXPRO6000": Model(_RTX_PRO, 97887, 637, (12, 0), 10, 0x2BB510DE, 24064, 600, pcie_idle=1, mig_max=4),
    "T4": Model("Tesla T4", 15360, 450, (7, 5), 6, 0x1EB810DE, 2560, 70, pcie=(3, 16), pcie_idle=1),
    "GB10": Model("NVIDIA GB10", None, 0, (12, 1), 10, 0x2E1210DE, 6144, 140, pcie=(1, 1), addressing=2),
}
_LARGEST = 1024  # GPUs, as many as the double can hold


def host(models: list[str], *, driver: str = "580.95.05", cuda: int = 13000) -> Json:
    """A healthy host with these GPUs, in this order."""
    return {
        "driver_version": driver,
        "nvml_version": f"{cuda // 1000}.{driver}",
        "cuda_driver_version": cuda,
        "gpus": [_gpu(MODELS[model], model, index, len(models)) for index, model in enumerate(models)],
    }


def profile(name: str) -> Json:
    """The host of this name: `8xH200` and the like up to 1,024, or one of SPECIAL. Raises KeyError for another name."""
    if name in SPECIAL:
        return SPECIAL[name]()
    shape = re.fullmatch(r"([1-9]\d{0,3})x(\w+)", name)
    if not shape or shape[2] not in MODELS or int(shape[1]) > _LARGEST:
        raise KeyError(name)
    return host([shape[2]] * int(shape[1]))


def names() -> list[str]:
    """The profiles worth listing; `profile` knows other counts as well."""
    return [f"{n}x{model}" for model in ("H200", "H100", "B200") for n in (1, 2, 8)] + [
        "4xL40S",
        "8xA100",
        "8xRTXPRO6000",
        "1xT4",
        *SPECIAL,
    ]


def _gpu(model: Model, kind: str, index: int, count: int) -> Json:
    domain, bus = divmod(index, len(_BUSES))
    node = 0 if index < (count + 1) // 2 else 1
    generation, width = model.pcie
    gpu = {
        "name": model.name,
        "uuid": f"GPU-{uuid.uuid5(_NAMESPACE, f'{kind}/{index}')}",
        "serial": f"165{index:010d}",
        "minor": index,
        "pci_bus_id": f"{domain:08X}:{_BUSES[bus]:02X}:00.0",
        "pci_device_id": model.pci_device_id,
        "brand": 14,  # NVML_BRAND_NVIDIA
        "architecture": model.architecture,
        "compute_capability_major": model.compute[0],
        "compute_capability_minor": model.compute[1],
        "cores": model.cores,
        "compute_mode": 0,
        "persistence_mode": 1,
        "performance_state": 0,
        "display_active": 0,
        "pcie_generation": model.pcie_idle or generation,
        "pcie_generation_max": generation,
        "pcie_width": width,
        "pcie_width_max": width,
        "temperature": 31,
        "clock_mhz": 1980,
        "power_mw": 75000,
        "power_limit_mw": model.power * 1000,
        "numa_node": node,
        "addressing_mode": model.addressing,
    }
    mig = {"mig_mode": 0, "mig_max": model.mig_max} if model.mig_max else {}
    return gpu | _memory(model) | _links(model, count) | mig


def _memory(model: Model) -> Json:
    if model.memory is None:
        return {}
    worn: Json = {"remapped_corrected": 0, "remapped_uncorrected": 0, "remap_pending": 0, "remap_failed": 0}
    if model.architecture < _AMPERE:
        worn = {"retired_single_bit": [], "retired_double_bit": [], "retirement_pending": 0}
    return {
        "memory_total": model.memory * MIB,
        "memory_reserved": model.reserved * MIB,
        "memory_used": 0,
        "bar1_total": (131072 if model.memory < 131072 else 262144) * MIB,
        "ecc_mode": 1,
        **worn,
    }


def _links(model: Model, count: int) -> Json:
    if not model.nvlinks:
        return {"p2p_status": 0 if model.memory else 5}  # over PCIe
    joined = {"fabric": {"state": FABRIC_COMPLETED, "status": 0, "clique": 0}} if model.fabric else {}
    return {
        "nvlinks": model.nvlinks,
        "nvlinks_up": model.nvlinks if count > 1 else 0,
        "nvlink_version": model.nvlink_version,
        **joined,
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


def _a100_mig() -> Json:
    """Two A100: the first cut into slices of 3g, 2g, 1g and 1g, the last of them in use; the second whole."""
    base = host(["A100"] * 2)
    sizes = {"3g.40gb": (40192, 42), "2g.20gb": (19968, 28), "1g.10gb": (9728, 14)}
    parts = [
        {
            "name": f"{MODELS['A100'].name} MIG {size}",
            "uuid": f"MIG-{uuid.uuid5(_NAMESPACE, f'a100-mig/{part}')}",
            "memory_total": sizes[size][0] * MIB,
            "memory_used": 12 * MIB,
            "gpu_instance": instance,
            "compute_instance": 0,
            "multiprocessors": sizes[size][1],
            "slices": int(size[0]),
        }
        for part, (size, instance) in enumerate((("3g.40gb", 2), ("2g.20gb", 3), ("1g.10gb", 9), ("1g.10gb", 10)))
    ]
    parts[3] |= {"memory_used": 9000 * MIB, "processes": [{"pid": 5151, "memory_used": 8990 * MIB}]}
    return _changed(base, 0, mig_mode=1, mig_devices=parts)


def _gb10() -> Json:
    """A DGX Spark: one GPU that shares the host's memory, and draws the desktop."""
    base = host(["GB10"], driver="580.95.05")
    desktop = [{"pid": 2020, "memory_used": 43 * MIB}]
    return _changed(
        base, 0, pci_bus_id="0000000F:01:00.0", display_active=1, persistence_mode=1, graphics_processes=desktop
    )


def _gb200(count: int) -> Json:
    """GPUs of one NVLink domain, four to a host: with a cluster and memory that is a NUMA node of its own."""
    base = host(["GB200"] * count)
    cluster = uuid.uuid5(_NAMESPACE, "nvl72").hex
    for index, gpu in enumerate(base["gpus"]):
        gpu |= {
            "fabric": {"state": FABRIC_COMPLETED, "status": 0, "clique": 32766, "cluster": cluster},
            "memory_numa_node": 2 + 8 * index,
        }
    return base


SPECIAL: dict[str, Callable[[], Json]] = {
    "mixed": lambda: host(["H100", "H200"]),
    "mig": _mig,
    "a100-mig": _a100_mig,
    "gb10": _gb10,
    "4xGB200": lambda: _gb200(4),
    "72xGB200": lambda: _gb200(72),
    "lost": lambda: _changed(host(["H200"] * 8), 5, faults={"*": {"error": GPU_IS_LOST}}),
    "lost-midway": lambda: _changed(host(["H200"] * 8), 5, faults={"*": {"error": GPU_IS_LOST, "after": 9}}),
    "hangs": lambda: _changed(host(["H200"] * 8), 5, faults={"nvmlDeviceGetEccMode": {"hang_ms": 3_600_000}}),
    "worn": lambda: _changed(host(["T4"] * 2), 1, retired_single_bit=[4096, 8192], retired_double_bit=[65536]),
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

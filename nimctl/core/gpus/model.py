"""GPUs as plain data: what NVML can say about each, and None where this driver or GPU does not say it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "no-library", "driver-not-loaded", "mismatch", "no-permission", "failed", "hangs"]
FabricState = Literal["not-supported", "not-started", "in-progress", "completed"]


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU: host pid, bytes (None where the driver will not say), and who it is.

    `name` is the program's short name and `container` the first 12 digits of its container's id, where /proc tells.
    `engine` is who made that container: "docker" (the daemon of the whole machine), "kubernetes", "podman", "cri-o",
    "containerd"; None where its control group does not say it for certain. `graphics`: it only draws (a desktop); the
    others compute.
    """

    pid: int
    memory: int | None
    name: str | None = None
    container: str | None = None
    graphics: bool = False
    engine: str | None = None


@dataclass(frozen=True)
class MigDevice:
    """One slice of a GPU under MIG. Memory in bytes."""

    uuid: str | None = None
    name: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True)
class Fabric:
    """How far this GPU has joined its NVLink switch fabric. `status` is an NVML error code, 0 when it went well.

    `cluster` (hexadecimal) and `clique` name the NVLink domain; GPUs of one pair reach each other over NVLink.
    `unhealthy` names what the driver calls unhealthy: degraded-bandwidth, route-recovery, route-unhealthy,
    access-timeout, incorrect-configuration. https://docs.nvidia.com/deploy/nvml-api/group__GPUFABRIC.html
    """

    state: FabricState | None = None
    status: int | None = None
    cluster: str | None = None
    clique: int | None = None
    unhealthy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML describes it. Memory in bytes; when it stopped answering `error` is set and the rest unknown, but
    for what it had said of its identity.

    `unified_memory`: it shares the host's memory, and has none of its own to count (then the sizes are None).
    `nvlinks_up` and `nvlinks_down` count its links. `ecc_uncorrected` counts since the last reset, `..._aggregate` over
    its life. Rows are remapped on Ampere and later; `pages_retired` counts on older ones.
    `mig_pending` and `ecc_pending` are what holds after the next reset.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    pci_id: str | None = None
    architecture: str | None = None
    compute_capability: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    unified_memory: bool | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    ecc: bool | None = None
    ecc_pending: bool | None = None
    ecc_uncorrected: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    rows_remapped: int | None = None
    row_remap_pending: bool | None = None
    row_remap_failed: bool | None = None
    pages_retired: int | None = None
    page_retirement_pending: bool | None = None
    compute_mode: str | None = None
    persistence: bool | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    nvlinks_up: int | None = None
    nvlinks_down: int | None = None
    fabric: Fabric | None = None
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class GpuLink:
    """How two GPUs (indices) reach each other.

    `ancestor` is the nearest thing above both: internal, single, multiple, hostbridge, node, system, in the order of
    distance. `p2p` tells whether one may read the other's memory directly, `p2p_status` why not.
    """

    first: int
    second: int
    ancestor: str | None = None
    p2p: bool | None = None
    p2p_status: str | None = None


@dataclass(frozen=True)
class GpuInventory:
    """What NVML said: `state` tells whether it could be asked at all, `detail` why not. `cuda` is like "13.0".

    `links` holds each pair of the first 16 GPUs once.
    """

    state: State
    detail: str | None = None
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    links: tuple[GpuLink, ...] = ()

"""The numbers that NVML answers, in words. Pure; values from nvml.h, https://docs.nvidia.com/deploy/nvml-api/."""

from collections.abc import Mapping

from nimctl.core.gpus.model import Fabric, FabricState

ARCHITECTURES: Mapping[int, str] = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
COMPUTE_MODES: Mapping[int, str] = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}
# nvmlGpuTopologyLevel_t: the nearest thing above two GPUs, by distance.
ANCESTORS: Mapping[int, str] = {
    0: "internal",
    10: "single",
    20: "multiple",
    30: "hostbridge",
    40: "node",
    50: "system",
}
# nvmlGpuP2PStatus_t
P2P: Mapping[int, str] = {
    0: "ok",
    1: "chipset-not-supported",
    2: "gpu-not-supported",
    3: "topology-not-supported",
    4: "disabled-by-regkey",
    5: "not-supported",
    6: "unknown",
}

_FABRIC_STATES: Mapping[int, FabricState] = {0: "not-supported", 1: "not-started", 2: "in-progress", 3: "completed"}
# Fields of the health mask: first bit, number of bits, the lowest value that is unhealthy, the highest.
# Two-bit fields answer 0 not supported, 1 true, 2 false; the configuration 0 not supported, 1 none wrong, 2.. what is.
_HEALTH = {
    "degraded-bandwidth": (0, 2, 1, 1),
    "route-recovery": (2, 2, 1, 1),
    "route-unhealthy": (4, 2, 1, 1),
    "access-timeout": (6, 2, 1, 1),
    "incorrect-configuration": (8, 4, 2, 15),
}


def fabric_of(*, state: int, status: int, cluster: bytes, clique: int, health_mask: int = 0) -> Fabric:
    """What `nvmlGpuFabricInfo_t` and its later versions say. A cluster of zeros is none: a single host has no name."""
    unhealthy = tuple(
        name
        for name, (shift, width, lowest, highest) in _HEALTH.items()
        if lowest <= (health_mask >> shift) % (1 << width) <= highest
    )
    return Fabric(
        state=_FABRIC_STATES.get(state),
        status=status,
        cluster=cluster.hex() if any(cluster) else None,
        clique=clique,
        unhealthy=unhealthy,
    )

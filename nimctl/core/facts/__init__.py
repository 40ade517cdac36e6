"""Host facts: everything observed on a machine, as plain data (`nimctl.facts/1`).

Gathered once by `nimctl.doctor.facts`, judged by the checks, planned upon by `nimctl.launch.plan`, and replayed on any
other machine from the JSON. Sizes are bytes. What could not be observed is None, never 0 or False. Nothing here ever
holds the value of a credential, only whether one is present.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.facts.access import (
    CaFacts,
    CredentialFacts,
    HostReach,
    ImageAccess,
    KeyKind,
    NetworkFacts,
    PortFacts,
    Reached,
    ToolFacts,
)
from nimctl.core.facts.docker import (
    CdiSpec,
    ContainerFacts,
    DaemonConfig,
    DockerFacts,
    DockerKind,
    DockerState,
    ImageFacts,
    ToolkitFacts,
)
from nimctl.core.facts.packages import Package
from nimctl.core.facts.storage import CacheEntry, CacheFacts, DiskFacts, HeldWeights, WriteTest
from nimctl.core.facts.system import (
    FabricManagerFacts,
    IommuFacts,
    LimitFacts,
    NvidiaKernelFacts,
    SecurityFacts,
    SystemFacts,
)
from nimctl.core.gpus import GpuInventory
from nimctl.core.plain import from_plain, to_plain

__all__ = [
    "SCHEMA",
    "CaFacts",
    "CacheEntry",
    "CacheFacts",
    "CdiSpec",
    "ContainerFacts",
    "CredentialFacts",
    "DaemonConfig",
    "DiskFacts",
    "DockerFacts",
    "DockerKind",
    "DockerState",
    "FabricManagerFacts",
    "HeldWeights",
    "HostFacts",
    "HostReach",
    "ImageAccess",
    "ImageFacts",
    "IommuFacts",
    "KeyKind",
    "LimitFacts",
    "NetworkFacts",
    "NvidiaKernelFacts",
    "Package",
    "PortFacts",
    "Reached",
    "SecurityFacts",
    "SystemFacts",
    "ToolFacts",
    "ToolkitFacts",
    "WriteTest",
    "from_json",
    "to_json",
]

SCHEMA = "nimctl.facts/1"


@dataclass(frozen=True)
class HostFacts:
    """Everything observed on one machine at one time (`taken_at`, ISO 8601 UTC), in `look_seconds`.

    `problems` are looks that failed or ran out of time, in words, each after the name of the look and a colon.
    """

    nimctl: str
    taken_at: str
    system: SystemFacts
    gpus: GpuInventory
    docker: DockerFacts
    toolkit: ToolkitFacts
    cdi: tuple[CdiSpec, ...]
    image_store: DiskFacts | None
    cache: CacheFacts
    port: PortFacts
    credentials: CredentialFacts
    network: NetworkFacts = field(default_factory=NetworkFacts)
    limits: LimitFacts = field(default_factory=LimitFacts)
    security: SecurityFacts = field(default_factory=SecurityFacts)
    nvidia_kernel: NvidiaKernelFacts = field(default_factory=NvidiaKernelFacts)
    fabric_manager: FabricManagerFacts = field(default_factory=FabricManagerFacts)
    iommu: IommuFacts = field(default_factory=IommuFacts)
    packages: tuple[Package, ...] = ()
    image: ImageFacts | None = None
    tools: ToolFacts = field(default_factory=ToolFacts)
    problems: tuple[str, ...] = ()
    look_seconds: float | None = None
    schema: str = SCHEMA


def to_json(facts: HostFacts) -> dict[str, Any]:
    """The facts as a JSON-ready document."""
    plain: dict[str, Any] = to_plain(facts)
    return plain


def from_json(data: Any) -> HostFacts:
    """Facts from such a document. Raises `facts-invalid` with the key that does not fit."""
    try:
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return from_plain(HostFacts, data)
    except ValueError as error:
        raise NimctlError(
            "facts-invalid",
            "the file is not a host facts document",
            cause=str(error),
            fix="Make one with `nimctl doctor --save-facts FILE` of this version.",
        ) from error

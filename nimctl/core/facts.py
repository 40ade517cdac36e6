"""Host facts: everything observed on a machine, as plain data (`nimctl.facts/1`).

Gathered once by `nimctl.doctor.facts`, judged by the checks, planned upon by `nimctl.launch.plan`, and replayed on any
other machine from the JSON. Sizes are bytes. What could not be observed is None, never 0 or False. Nothing here ever
holds the value of a credential, only whether one is present.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nimctl.core.errors import NimctlError
from nimctl.core.gpus import GpuInventory
from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.facts/1"


@dataclass(frozen=True)
class SystemFacts:
    """Operating system, processor architecture (`x86_64`, `aarch64`), memory and who asks."""

    os_id: str | None = None
    os_version: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    arch: str | None = None
    cpus: int | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    shm_total: int | None = None
    uid: int | None = None
    groups: tuple[str, ...] = ()
    wsl: bool | None = None


DockerState = Literal["ok", "missing", "permission", "unreachable", "hangs"]


@dataclass(frozen=True)
class DockerFacts:
    """The Docker Engine that answers on `endpoint`. `detail` says why `state` is not ok."""

    state: DockerState
    detail: str | None = None
    endpoint: str | None = None
    version: str | None = None
    api_version: str | None = None
    rootless: bool | None = None
    storage_driver: str | None = None
    data_root: str | None = None
    runtimes: tuple[str, ...] = ()
    default_runtime: str | None = None
    cdi_spec_dirs: tuple[str, ...] | None = None  # None: CDI is off, or the engine is too old to say
    cgroup_driver: str | None = None
    cgroup_version: str | None = None
    security_options: tuple[str, ...] = ()
    architecture: str | None = None
    operating_system: str | None = None
    buildx: str | None = None


@dataclass(frozen=True)
class ToolkitFacts:
    """The NVIDIA Container Toolkit: its version, which program said so, and whether docker's `--gpus` hook exists."""

    version: str | None = None
    source: str | None = None
    hook: str | None = None


@dataclass(frozen=True)
class CdiSpec:
    """One CDI specification file: its `kind` (`nvidia.com/gpu`) and device names; `problem` when it cannot be read."""

    path: str
    kind: str | None = None
    devices: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class DiskFacts:
    """A filesystem as seen from `path` (the nearest existing parent of the path asked for).

    `device` ("major:minor") tells whether two paths share one filesystem.
    """

    path: str
    filesystem: str | None = None
    device: str | None = None
    total: int | None = None
    free: int | None = None
    inodes_free: int | None = None
    read_only: bool | None = None


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder in the cache, by its path below it. `mode` is octal text like "0600"."""

    path: str
    uid: int
    gid: int
    mode: str


@dataclass(frozen=True)
class CacheFacts:
    """The cache folder. `mode` is octal text like "2770"; `group_writable` answers: may a process of group 0 write?

    `writable` answers the same for the user who asks, or whether that user may make a folder that does not exist.
    The entries are folders that group 0 cannot write, and files and folders that it cannot read; private engine caches
    left out, `entries_seen` of them looked at, which take `entries_bytes`. `hangs`: the filesystem did not answer.
    """

    path: str
    exists: bool | None
    hangs: bool = False
    problem: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: str | None = None
    group_writable: bool | None = None
    writable: bool | None = None
    entries_seen: int | None = None
    entries_bytes: int | None = None
    unwritable_entries: tuple[CacheEntry, ...] = ()
    unreadable_entries: tuple[CacheEntry, ...] = ()
    disk: DiskFacts | None = None


@dataclass(frozen=True)
class PortFacts:
    """The address a run would publish on. `free` is None where it could not be tried."""

    host: str
    port: int
    free: bool | None = None
    detail: str | None = None


@dataclass(frozen=True)
class CredentialFacts:
    """Which keys are present (never their values) and where Docker keeps its logins."""

    keys: Mapping[str, bool] = field(default_factory=dict)
    logins: tuple[str, ...] = ()
    store: str | None = None


@dataclass(frozen=True)
class ToolFacts:
    """What the process runtime needs on the host: nginx's path and version, and vLLM's version in this Python."""

    nginx: str | None = None
    nginx_version: str | None = None
    vllm: str | None = None


@dataclass(frozen=True)
class HostFacts:
    """Everything observed on one machine at one time (`taken_at`, ISO 8601 UTC)."""

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
    proxies: Mapping[str, str] = field(default_factory=dict)
    tools: ToolFacts = field(default_factory=ToolFacts)
    problems: tuple[str, ...] = ()  # probes that failed or ran out of time, in words
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

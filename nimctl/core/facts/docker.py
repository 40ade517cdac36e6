"""Facts about the Docker Engine, NVIDIA's container toolkit and CDI."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

DockerState = Literal["ok", "missing", "permission", "unreachable", "hangs"]
# Who answers on Docker's socket. "engine" is Docker Engine itself, whoever packaged it.
DockerKind = Literal["engine", "desktop", "snap", "podman", "other"]


@dataclass(frozen=True)
class DaemonConfig:
    """What Docker's configuration file says of the things that matter here; None where it does not say.

    `exists` is None where this user may not look. `problem` is why it cannot be read as configuration, `text_hash` the
    SHA-256 of its bytes, which tells two versions apart. `repeated` are keys that stand in it twice. `default_ulimits`
    are name to [soft, hard]. Nothing else of the file is kept.
    """

    path: str
    exists: bool | None = None
    problem: str | None = None
    text_hash: str | None = None
    repeated: tuple[str, ...] = ()
    hosts: bool | None = None  # whether it says where to listen, which a flag of the service unit may say as well
    runtimes: tuple[str, ...] | None = None
    default_runtime: str | None = None
    cdi: bool | None = None
    cgroup_driver: str | None = None
    live_restore: bool | None = None
    default_shm_size: str | None = None
    default_ulimits: Mapping[str, tuple[int, ...]] | None = None
    userns_remap: bool | None = None
    proxies: bool | None = None


@dataclass(frozen=True)
class ContainerFacts:
    """One running container: `gpus` whether it was given GPUs, `ours` whether nimctl started it.

    `gpus` is None where only its name was seen, because there were too many or too little time. `key_variables` names
    the variables of its environment that hold a key; never their values.
    """

    id: str
    name: str
    image: str | None = None
    gpus: bool | None = None
    ours: bool = False
    key_variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class DockerFacts:
    """The Docker Engine that answers on `endpoint`. `detail` says why `state` is not ok.

    `runtime_paths` is the program of each runtime, `missing_runtimes` those whose program is not on this host.
    `cdi_devices` are the CDI devices that the engine itself knows, None where it does not say (before API 1.50).
    `containers` are the running ones, None where they were not listed.
    """

    state: DockerState
    detail: str | None = None
    endpoint: str | None = None
    kind: DockerKind | None = None
    version: str | None = None
    api_version: str | None = None
    runc: str | None = None
    containerd: str | None = None
    rootless: bool | None = None
    storage_driver: str | None = None
    containerd_store: bool | None = None
    data_root: str | None = None
    runtimes: tuple[str, ...] = ()
    runtime_paths: Mapping[str, str] | None = None
    missing_runtimes: tuple[str, ...] = ()
    default_runtime: str | None = None
    cdi_spec_dirs: tuple[str, ...] | None = None  # None: CDI is off, or the engine is too old to say
    cdi_devices: tuple[str, ...] | None = None
    cgroup_driver: str | None = None
    cgroup_version: str | None = None
    security_options: tuple[str, ...] = ()
    architecture: str | None = None
    operating_system: str | None = None
    live_restore: bool | None = None
    pids_limit: bool | None = None
    http_proxy: bool | None = None  # whether the daemon pulls through a proxy
    config: DaemonConfig | None = None
    containers: tuple[ContainerFacts, ...] | None = None


@dataclass(frozen=True)
class ToolkitFacts:
    """The NVIDIA Container Toolkit: its version, which program said so, and whether docker's `--gpus` hook exists.

    `mode` is `nvidia-container-runtime.mode` of its config.toml (auto, legacy, cdi); `no_cgroups` its setting of that
    name; `features` the names that are on in its section [features]. None where the file says nothing or is not there.
    """

    version: str | None = None
    source: str | None = None
    hook: str | None = None
    ctk: str | None = None  # where nvidia-ctk is
    config: str | None = None  # which file was read
    config_problem: str | None = None
    mode: str | None = None
    no_cgroups: bool | None = None
    features: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CdiSpec:
    """One CDI specification file: its `kind` (`nvidia.com/gpu`) and device names; `problem` when it cannot be read.

    `driver` is the version in the names of the libraries that it mounts; `missing` the first few host paths that it
    needs and that do not exist.
    """

    path: str
    kind: str | None = None
    devices: tuple[str, ...] = ()
    problem: str | None = None
    driver: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """The image that a run would use, where it is on this host already.

    `min_driver` and `min_compute_capability` ("580", "7.5") are what its labels ask of the host, `engine` what they
    say that it serves with ("vllm 0.32.0"); None where it has no such label.
    """

    reference: str
    present: bool | None = None
    digest: str | None = None
    architecture: str | None = None
    min_driver: str | None = None
    min_compute_capability: str | None = None
    engine: str | None = None

    def described(self, labels: Mapping[str, str]) -> "ImageFacts":
        """This image with what its labels say."""
        serves = " ".join(filter(None, (labels.get("io.nimctl.engine"), labels.get("io.nimctl.engine.version"))))
        return replace(
            self,
            min_driver=labels.get("io.nimctl.min-driver"),
            min_compute_capability=labels.get("io.nimctl.min-compute-capability"),
            engine=serves or None,
        )

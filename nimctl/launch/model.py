"""The data of a launch: what was asked (`RunOptions`) and everything a start needs (`LaunchPlan`).

Frozen and comparable, so that two plans can be held against each other. No field ever holds the value of a key: keys
appear by name, as a file to mount or as a variable to hand over from the caller's environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nimctl.core.image_identity import ImageIdentity
from nimctl.core.injection import Mode
from nimctl.core.layout import Layout
from nimctl.core.recipes import Recipe
from nimctl.core.secret import Secret

SCHEMA = "nimctl.launch-plan/1"
IMAGE_LABEL = "io.nimctl.image"
LOCK_LABEL = "io.nimctl.lock"

RuntimeName = Literal["docker", "process"]
Kind = Literal["ours", "nim"]
GpuMode = Literal["runtime", "runtime-env", "gpus", "cdi", "none"]


@dataclass(frozen=True)
class RunOptions:
    """What was asked for, after flags, variables, configuration files and defaults were merged.

    `gpus` is None, or its origin "default", when nobody asked: then all GPUs of the host are meant. `model_path` is an
    absolute folder or a URI that replaces the recipe's weights. `gpu_mode` is the one way in which docker is to hand
    over GPUs, None for the first that works. `origins` says where a value came from, by field name ("--port",
    "NIMCTL_CACHE", a file); what is not named there is a default. `secrets_present` names the keys that the caller
    holds; `secrets_dir` is the folder for key files (None: /dev/shm/nimctl-UID). `assume_gpus` is for
    looking only: on a host without GPUs NVIDIA's image is planned as for the host of its page. `surroundings` are the
    caller's variables that a download may need (`handover.passed`).
    """

    recipe: Recipe | None
    name: str
    cache: Path
    uid: int
    image: str | None = None
    gpus: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    runtime: RuntimeName = "docker"
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    engine_args: tuple[str, ...] = ()
    secrets_present: tuple[str, ...] = ()
    secrets_dir: Path | None = None
    assume_gpus: bool = False
    model_path: str | None = None
    gpu_mode: Mode | None = None
    surroundings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """A resolved setting as text, where it came from, and why it is so."""

    value: str
    origin: str
    why: str


@dataclass(frozen=True)
class EnvVar:
    """A variable of the container. A `Secret` is handed over by name, never written into a command line."""

    name: str
    value: str | Secret
    origin: str
    why: str


@dataclass(frozen=True)
class SecretMount:
    """A key by name. `source` is the staged file, seen in the container at `target` with `mode` (octal text).

    For images that read keys only from their environment both are None, and the variable is handed over by name.
    `required`: without the key the start is refused.
    """

    name: str
    source: str | None
    target: str | None
    mode: str = "0440"
    required: bool = False


@dataclass(frozen=True)
class Mount:
    """A host folder in the container, with the reason."""

    source: str
    target: str
    read_only: bool
    why: str


@dataclass(frozen=True)
class GpuRequest:
    """How docker is asked for GPUs. `devices` are NVML indices as text, or the one word `all`; empty for none.

    `runtime` is `--runtime=nvidia --gpus ...`; `runtime-env` the same runtime with NVIDIA_VISIBLE_DEVICES instead of
    `--gpus`; `gpus` is `--gpus` alone; `cdi` names devices as its specification does, by index or UUID.
    """

    mode: GpuMode
    devices: tuple[str, ...] = ()
    count: int = 0
    why: str = ""


@dataclass(frozen=True)
class Port:
    """Container port `container` published on `host_ip`:`host`."""

    host_ip: str
    host: int
    container: int


@dataclass(frozen=True)
class Security:
    """The confinement of the container; `tmpfs` maps a path to its mount options."""

    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = True
    read_only: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExactImage:
    """The image that a container is made of: `id` is what the daemon calls it, and a tag can be moved under no id."""

    id: str
    identity: ImageIdentity

    @property
    def name(self) -> str:
        """What `docker run` takes for exactly this image: `repository@sha256:...`, else the id."""
        return pinned(self.identity.reference, self.identity.digest) or self.id


def pinned(reference: str, digest: str | None) -> str | None:
    """`reference` with the digest in place of its tag; None without a digest."""
    if digest is None:
        return None
    folder, slash, name = reference.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}@{digest}"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything a start needs, as data.

    `user` is None when the image's own user is kept; `layout` when the image decides it by itself; `stop_timeout` is
    in seconds and covers the drain. `argv` goes to the image's entrypoint. `settings` explains values by name. A
    note is one sentence for the user behind an id to search for (`key-in-environment: ...`). `image` is for people; a
    container is made of `exact`, which is known once the image is on this host.
    """

    name: str
    kind: Kind
    runtime: RuntimeName
    image: str | None
    recipe: str | None
    user: str | None
    argv: tuple[str, ...]
    env: tuple[EnvVar, ...]
    secrets: tuple[SecretMount, ...]
    mounts: tuple[Mount, ...]
    gpu: GpuRequest
    port: Port
    security: Security
    shm_bytes: int
    stop_timeout: int
    labels: Mapping[str, str]
    layout: Layout | None
    notes: tuple[str, ...]
    settings: Mapping[str, Value]
    exact: ExactImage | None = None
    schema: str = SCHEMA

    @property
    def container_labels(self) -> Mapping[str, str]:
        """The labels of its container: one made of an id would not tell under which name people know the image."""
        return {**self.labels, IMAGE_LABEL: self.image} if self.exact and self.image else self.labels

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of the keys that a start of this plan hands over."""
        return tuple(s.name for s in self.secrets)

    @property
    def layout_gpus(self) -> int:
        """How many GPUs the run is given to compute on; 0 means the CPU."""
        if self.gpu.mode == "none":
            return 0
        return len(self.layout.used) if self.layout else self.gpu.count

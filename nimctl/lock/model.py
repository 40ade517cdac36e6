"""What a lock says: `nimctl.lock/1`. Plain data, frozen and comparable; people review it as text.

In it is what decides what runs: image, weights, recipe, layout, engine arguments, variables and confinement. Not in it
is where it runs: no time, no host, no folder of a user, no port, and of a secret no more than its name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nimctl.core.fetch.manifest import File, content_digest
from nimctl.core.image_identity import ImageIdentity

SCHEMA = "nimctl.lock/1"
FILE_NAME = "nimctl.lock"


@dataclass(frozen=True)
class LockedImage:
    """The image: `reference` is its name for people, and `digest`, `manifests` and `config` are what is started.

    `digest` is what the reference stood for in its registry, None for an image that was built and never pushed;
    `manifests` are those of its platforms, as far as they are known; `config` is the configuration's on `platform`,
    None where only containerd's store was asked. `labels` are those by which the image describes itself.
    """

    reference: str
    platform: str
    digest: str | None = None
    config: str | None = None
    manifests: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> ImageIdentity:
        """The image on the platform that the lock was made on."""
        return ImageIdentity(self.reference, self.digest, self.manifests.get(self.platform), self.config, self.platform)


@dataclass(frozen=True)
class LockedWeights:
    """Every file of the checkpoint at one immutable revision. `source` is its address, with that revision where the
    source has any, without passwords; `bytes` is the size of all files together.

    A file's `digest` is `algorithm:hex`, None where the source has none.
    """

    source: str
    revision: str
    bytes: int
    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """One SHA-256 for path, size and digest of every file."""
        return content_digest(self.files)

    @property
    def unhashed(self) -> tuple[str, ...]:
        """The files whose content the lock does not tell."""
        return tuple(file.path for file in self.files if file.digest is None)


@dataclass(frozen=True)
class LockedRecipe:
    """The recipe by its name and the SHA-256 of what it says."""

    name: str
    sha256: str


@dataclass(frozen=True)
class LockedLayout:
    """The profile by name and id, its sizes, and the engine arguments that these GPUs need for it."""

    profile: str
    id: str
    tensor: int
    pipeline: int
    data: int = 1
    decode_context: int = 1
    expert: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LockedGpus:
    """The GPUs that the layout was made for: how many of which model; `count` 0 is the CPU."""

    count: int
    model: str | None = None


@dataclass(frozen=True)
class LockedOption:
    """An engine option as it was settled: the value as the engine reads it, and the layer that decided it."""

    value: Any
    source: str


@dataclass(frozen=True)
class LockedEngine:
    """The engine: its version as the image tells it, the arguments asked for, and what they were settled to.

    `options` is None where image or weights were not at hand: then what decides them is locked all the same.
    """

    version: str | None = None
    arguments: tuple[str, ...] = ()
    options: Mapping[str, LockedOption] | None = None


@dataclass(frozen=True)
class LockedContainer:
    """The confinement: what the container may not do, and what it gets. `shm_bytes` in bytes."""

    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = True
    read_only: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    shm_bytes: int = 0


@dataclass(frozen=True)
class Lock:
    """One server. `model` is what `nimctl run` is told; `variables` are those asked for, None in place of a secret.

    `weights` and `layout` are None for NVIDIA's images, which choose both by themselves. `nimctl` is the version that
    wrote it, for people: what it decides is compared itself.
    """

    model: str
    nimctl: str
    image: LockedImage
    recipe: LockedRecipe
    gpus: LockedGpus
    engine: LockedEngine
    container: LockedContainer
    weights: LockedWeights | None = None
    layout: LockedLayout | None = None
    variables: Mapping[str, str | None] = field(default_factory=dict)
    schema: str = SCHEMA


def sha256_of(document: Any) -> str:
    """The SHA-256 of plain data, however its keys are ordered."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

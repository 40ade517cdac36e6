"""What a source of weights is to the rest of the house: one protocol, one module for each source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nimctl.core.fetch.manifest import Manifest


@dataclass(frozen=True)
class Progress:
    """How far a fetch is: bytes verified, of `total` (None: not known), and the file at hand."""

    bytes: int
    total: int | None = None
    file: str | None = None


OnProgress = Callable[[Progress], None]


class Source(Protocol):
    """Where the files of a checkpoint come from.

    `repo` names the checkpoint in the cache ("org/name"). `in_place` is the folder that is served as it stands; where
    it is None, the files have to be materialised in the cache first.
    """

    @property
    def repo(self) -> str:
        """The checkpoint's name in the cache."""

    @property
    def in_place(self) -> Path | None:
        """The folder that needs no copy."""

    def resolve(self) -> Manifest:
        """Pin the revision and list every file. Raises a `weights-*` NimctlError."""

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        """Write the files of `manifest` into the existing, empty `folder`; the caller verifies and installs them."""

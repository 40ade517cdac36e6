"""What a checkpoint consists of: path, size and SHA-256 of every file at one immutable revision."""

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.manifest/1"


@dataclass(frozen=True)
class File:
    """One file: `path` relative with slashes, `size` in bytes, `sha256` in hexadecimal or None where it is not known.

    Raises ValueError for a path that would leave the folder, whoever named it.
    """

    path: str
    size: int
    sha256: str | None = None

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
            raise ValueError(f"not a path inside a checkpoint: {self.path!r}")


@dataclass(frozen=True)
class Manifest:
    """Every file of `source` (its URI) at `revision`."""

    source: str
    revision: str
    files: tuple[File, ...]
    schema: str = SCHEMA

    @property
    def total(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON-ready document."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def from_json(data: Any) -> Manifest:
    """The manifest in such a document. Raises ValueError with what does not fit."""
    manifest = from_plain(Manifest, data)
    if manifest.schema != SCHEMA:
        raise ValueError(f"schema is {manifest.schema!r}, not {SCHEMA!r}")
    return manifest


def revision_of(files: tuple[File, ...]) -> str:
    """A revision for a source that has none of its own: 40 hexadecimal digits (like a commit) of the content."""
    lines = sorted(f"{PurePosixPath(f.path)} {f.size} {f.sha256}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]

"""What a checkpoint consists of: path, size and digest of every file at one immutable revision."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nimctl.core.fetch import digests
from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.manifest/1"
_LONGEST_NAME = 255  # bytes of one component: NAME_MAX of Linux
_LONGEST_PATH = 1024  # bytes; leaves room for the cache's own folders below PATH_MAX, 4096


@dataclass(frozen=True)
class File:
    """One file: `path` relative with slashes, `size` in bytes, `digest` as `algorithm:hex` or None where not known.

    `version` is what the source calls this state of a file whose digest it does not know, such as an ETag: with it, an
    interrupted download can be taken up again.
    Raises ValueError for a path that would leave the folder or that a filesystem cannot hold, whoever named it, for a
    negative size and for what is no digest.
    """

    path: str
    size: int
    digest: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if any(not _is_safe(part) for part in self.path.split("/")) or len(self.path.encode()) > _LONGEST_PATH:
            raise ValueError(f"not a path inside a checkpoint: {self.path!r}")
        if self.size < 0:
            raise ValueError(f"not a size: {self.size}")
        if self.digest is not None:
            digests.parse(self.digest)

    @property
    def expected(self) -> digests.Digest | None:
        """The digest that the content must have."""
        return digests.parse(self.digest) if self.digest else None

    @cached_property
    def key(self) -> str:
        """The name of its bytes: its blob's where the digest is known, else one made of path, size and version."""
        if expected := self.expected:
            return expected.hex
        return "unhashed-" + hashlib.sha256(f"{self.size} {self.path} {self.version}".encode()).hexdigest()[:32]


def _is_safe(part: str) -> bool:
    """Whether `part` is one plain component of a path on every system that may share the cache."""
    try:
        length = len(part.encode())
    except UnicodeEncodeError:  # a lone surrogate: no filesystem here can name it
        return False
    if part in ("", ".", "..") or length > _LONGEST_NAME:
        return False
    return not any(char in "\\\0" or ord(char) < 32 or ord(char) == 127 for char in part)


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
    lines = sorted(f"{f.path} {f.size} {f.digest}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def content_digest(files: Iterable[File]) -> str:
    """One SHA-256, as 64 hexadecimal digits, for path, size and digest of every file, in whatever order they come."""
    lines = sorted(f"{f.path}\0{f.size}\0{f.digest or ''}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()

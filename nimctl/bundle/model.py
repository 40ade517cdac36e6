"""What `bundle.json` says: every file of the bundle with size and SHA-256, and what they are for. Pure.

    bundle.json                 this document, written last: without it the bundle is not finished
    SHA256SUMS                  the same sums for `sha256sum -c`, and that of bundle.json
    bundle.sig                  where it was signed: a signature of bundle.json
    nimctl.lock                 what exactly is to be started
    image/                      an OCI image layout, with the manifest.json that `docker load` reads
    weights/                    the checkpoint, and nimctl.manifest.json
    trust/                      signatures of the image, and the public keys that the rules name
    caches/<key>/               compile caches, where they were asked for

Where the bundle is split, a large file lies there as `NAME.part001`, `NAME.part002`, ...
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nimctl.bundle.problems import invalid
from nimctl.core.cache import Part as CachePart
from nimctl.core.fetch.manifest import File
from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.bundle/1"
NAME, SUMS, SIGNATURE, PARTIAL = "bundle.json", "SHA256SUMS", "bundle.sig", ".nimctl-partial"
LOCK, IMAGE, WEIGHTS, TRUST, CACHES = "nimctl.lock", "image", "weights", "trust", "caches"
LARGEST = 64 * 2**20  # bytes of bundle.json; a hundred thousand files need a third of it
MOST_FILES = 100_000
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OURS = {NAME.casefold(), SUMS.casefold(), SIGNATURE.casefold(), PARTIAL.casefold()}


@dataclass(frozen=True)
class Piece:
    """One file as it lies in the folder: `path` with slashes, `size` in bytes, `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One file of the content. `parts` are the files it was cut into, in order; none: it lies there whole."""

    path: str
    size: int
    sha256: str
    parts: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The files that hold it."""
        return self.parts or (Piece(self.path, self.size, self.sha256),)


@dataclass(frozen=True)
class Image:
    """The image: its name and its digests, as `core.image_identity.ImageIdentity` has them. `size` of its blobs."""

    reference: str
    digest: str | None
    manifest: str
    config: str
    platform: str
    size: int


@dataclass(frozen=True)
class Weights:
    """The checkpoint: where it came from, and where in a cache it belongs; `refs` are names of its revision."""

    source: str
    repo: str
    part: CachePart
    revision: str
    refs: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class CompileCache:
    """One engine cache: `key` names its folder; the files in `executables` had the mode bit. It holds code."""

    key: str
    executables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The whole document. `model` is the recipe that was bundled; `created_by` the version that wrote it."""

    created_by: str
    model: str
    files: tuple[Entry, ...]
    image: Image | None = None
    weights: Weights | None = None
    lock: str | None = None
    signatures: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    caches: tuple[CompileCache, ...] = ()
    schema: str = SCHEMA

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def signature_count(self) -> int:
        """Signatures of the image; one more file lists them."""
        return max(0, len(self.signatures) - 1)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Every file as it lies in the folder, those that hold the sums excepted."""
        return tuple(piece for entry in self.files for piece in entry.pieces)

    def entry(self, path: str) -> Entry:
        """The file of that name. Raises `bundle-invalid`."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise invalid(f"it names {path}, and holds no such file")

    def below(self, folder: str) -> tuple[Entry, ...]:
        """The files below a folder of the bundle."""
        return tuple(entry for entry in self.files if entry.path.startswith(f"{folder}/"))

    def to_bytes(self) -> bytes:
        """The document as it is written; the same bundle always gives the same bytes."""
        plain: dict[str, Any] = to_plain(self)
        head = {"schema": plain.pop("schema")}
        return (json.dumps({**head, **plain}, indent=1, ensure_ascii=False) + "\n").encode()


def from_bytes(data: bytes) -> Bundle:
    """The bundle that such a document describes. Raises `bundle-invalid`, also for names that leave the folder."""
    try:
        document = json.loads(data)
        if isinstance(document, dict) and document.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {document.get('schema')!r:.100}, and this version knows {SCHEMA!r}")
        bundle = from_plain(Bundle, document)
        _require_plain(bundle)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{NAME} cannot be used: {error}"[:600]) from error
    return bundle


def sums(pieces: Iterable[Piece], others: Iterable[tuple[str, str]]) -> bytes:
    """The lines that `sha256sum -c` reads, by path; `others` are paths with their SHA-256."""
    lines = [(piece.path, piece.sha256) for piece in pieces]
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted([*lines, *others])).encode()


def require_entry(entry: Entry) -> None:
    """Raises ValueError for names that are not inside the folder, what is no SHA-256, and parts that do not add up."""
    for piece in (Piece(entry.path, entry.size, entry.sha256), *entry.parts):
        _require_file(piece)
    if sum(piece.size for piece in entry.pieces) != entry.size:
        raise ValueError(f"the parts of {entry.path!r:.200} have another size than it")


def require_distinct(paths: Iterable[str]) -> None:
    """Raises ValueError where two names would be one file on some system, or a file would be a folder of another."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        plain = unicodedata.normalize("NFC", path).casefold()
        if plain in seen:
            raise ValueError(f"{seen[plain]!r:.200} and {path!r:.200} are one name where case does not count")
        seen[plain] = path
        above = plain
        while "/" in above:
            above = above.rpartition("/")[0]
            folders.setdefault(above, path)
    for plain, path in seen.items():
        if plain in folders:
            raise ValueError(f"{path!r:.200} is a file, and a folder of {folders[plain]!r:.200}")


def _require_plain(bundle: Bundle) -> None:
    """Raises ValueError for what no packer writes: names outside the folder, sums that cannot be, clashes."""
    if len(bundle.files) > MOST_FILES or len(bundle.pieces) > MOST_FILES:
        raise ValueError(f"it names more than {MOST_FILES} files")
    for entry in bundle.files:
        require_entry(entry)
    require_distinct(piece.path for piece in bundle.pieces)
    require_distinct(entry.path for entry in bundle.files)
    image = bundle.image
    for digest in filter(None, (image.digest, image.manifest, image.config) if image else ()):
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r:.100} is no digest of an image")
    listed = {entry.path for entry in bundle.files}
    for path in (*filter(None, [bundle.lock]), *bundle.signatures, *bundle.keys):
        if path not in listed:
            raise ValueError(f"it names {path!r:.200}, and holds no such file")
    for cache in bundle.caches:
        if "/" in File(cache.key, 0).path:
            raise ValueError(f"{cache.key!r:.200} is no name of a compile cache")


def _require_file(piece: Piece) -> None:
    """Raises ValueError for a name that is not one inside the folder, or no SHA-256."""
    File(piece.path, piece.size)
    if not _HEX.fullmatch(piece.sha256):
        raise ValueError(f"{piece.path!r:.200} has no SHA-256")
    if piece.path.partition("/")[0].casefold() in _OURS:
        raise ValueError(f"{piece.path!r:.200} is no name for content")

"""An image out of the stream of `docker save`, blob by blob: no second copy of it, neither in memory nor on the disk.

Engines since 25.0 write an OCI layout, older ones a folder for each layer, named by nothing that says its digest; both
hold the manifest.json that tells what is what: https://github.com/moby/moby/tree/v28.0.0/image/tarexport.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nimctl.bundle.image import blob_path, manifest_of_save
from nimctl.bundle.items import Item, of_bytes
from nimctl.bundle.packing import Packer
from nimctl.core.errors import NimctlError

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_SMALL = 8 * 2**20
_MOST_SMALL = 64 * 2**20  # bytes of all documents together
_BLOCK = 2**20


@dataclass(frozen=True)
class Saved:
    """The image that was packed: its manifest, the digest of its configuration, and the digests of its blobs."""

    manifest: bytes
    config: str
    blobs: tuple[str, ...]


@dataclass
class _Seen:
    """What a stream held: small documents by name, digest and size of large files by name, links."""

    small: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    old: bool = False


def pack_saved(stream: Callable[[], Iterator[bytes]], packer: Packer, folder: Path) -> Saved:
    """Pack the one image that `stream` gives, into `folder`. An archive of the older form is read twice.

    Raises `image-incompatible` for an archive that holds none, and as `stream` and `Packer.pack_one` do.
    """
    try:
        seen = _read(stream(), packer, known={})
        if seen.old:
            seen = _read(stream(), packer, known=seen.large)
        return _described(seen, packer, folder)
    except (tarfile.TarError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise NimctlError(
            "image-incompatible",
            "the archive that the engine wrote holds no image",
            cause=f"{type(error).__name__}: {error}"[:300],
            fix="Save it with `docker save` and look into it; a newer Docker Engine may write it right.",
        ) from error


def _read(stream: Iterator[bytes], packer: Packer, known: dict[str, tuple[str, int]]) -> _Seen:
    """One pass: blobs are packed, large files of the older form hashed, or packed where their digest is `known`."""
    seen = _Seen()
    with tarfile.open(fileobj=io.BufferedReader(_Raw(stream), _BLOCK), mode="r|", bufsize=_BLOCK) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.issym() or member.islnk():
                seen.links[name] = _target(name, member)
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if blob := _BLOB.fullmatch(name):
                packer.pack_one(_item(f"sha256:{blob[1]}", member.size, content))
                seen.large[name] = f"sha256:{blob[1]}", member.size
            elif name.endswith("layer.tar") or member.size > _SMALL:
                seen.large[name] = _large(name, member.size, content, packer, known)
                seen.old = not known
            else:
                seen.small[name] = content.read()
                if sum(map(len, seen.small.values())) > _MOST_SMALL:
                    raise ValueError("its documents are too large")
    return seen


def _large(
    name: str, size: int, content: IO[bytes], packer: Packer, known: dict[str, tuple[str, int]]
) -> tuple[str, int]:
    if name in known:
        packer.pack_one(_item(known[name][0], size, content))
        return known[name]
    hasher = hashlib.sha256()
    while block := content.read(_BLOCK):
        hasher.update(block)
    return f"sha256:{hasher.hexdigest()}", size


def _item(digest: str, size: int, content: IO[bytes]) -> Item:
    def read(offset: int) -> Iterator[bytes]:
        while offset and (block := content.read(min(_BLOCK, offset))):
            offset -= len(block)
        while block := content.read(_BLOCK):
            yield block

    return Item(blob_path(digest), size, read, digest, once=True)


def _described(seen: _Seen, packer: Packer, folder: Path) -> Saved:
    described = json.loads(seen.small["manifest.json"])
    if len(described) != 1:
        raise ValueError(f"it holds {len(described)} images")
    config = _config(seen, described[0]["Config"], packer, folder)
    layers = [seen.large[_resolved(seen, name)] for name in described[0]["Layers"]]
    manifest = _manifest(seen, config, folder)
    if manifest is None:
        manifest = manifest_of_save(config, layers)
        packer.pack_one(of_bytes(blob_path(f"sha256:{hashlib.sha256(manifest).hexdigest()}"), manifest))
    found = json.loads(manifest)
    blobs = [f"sha256:{hashlib.sha256(manifest).hexdigest()}", found["config"]["digest"]]
    return Saved(manifest, blobs[1], tuple(dict.fromkeys([*blobs, *(layer["digest"] for layer in found["layers"])])))


def _config(seen: _Seen, name: str, packer: Packer, folder: Path) -> bytes:
    if name in seen.small:  # the older form
        content = seen.small[name]
        packer.pack_one(of_bytes(blob_path(f"sha256:{hashlib.sha256(content).hexdigest()}"), content))
        return content
    return _blob(seen.large[name][0], folder)


def _manifest(seen: _Seen, config: bytes, folder: Path) -> bytes | None:
    """The manifest in the archive that names this configuration; None where the archive has none."""
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    waiting: list[Any] = json.loads(seen.small.get("index.json", b"{}")).get("manifests") or []
    for descriptor in waiting:
        if f"blobs/{descriptor['digest'].replace(':', '/')}" not in seen.large:
            continue
        content = _blob(descriptor["digest"], folder)
        document = json.loads(content)
        if (document.get("config") or {}).get("digest") == digest:
            return content
        waiting += document.get("manifests") or []
        if len(waiting) > 1000:
            break
    return None


def _blob(digest: str, folder: Path) -> bytes:
    path = folder / blob_path(digest)
    if path.stat().st_size > _SMALL:
        raise ValueError(f"{digest} is too large for a document")
    return path.read_bytes()


def _resolved(seen: _Seen, name: str) -> str:
    """The name of the file behind links: the older form writes a layer that repeats as a link."""
    for _ in range(len(seen.links) + 1):
        if name not in seen.links:
            break
        name = seen.links[name]
    return name


def _target(name: str, member: tarfile.TarInfo) -> str:
    if member.islnk():
        return member.linkname.removeprefix("./")
    parts = name.split("/")[:-1]
    for part in member.linkname.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Raw(io.RawIOBase):
    """Blocks as a file that can be read, no more."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

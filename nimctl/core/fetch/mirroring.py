"""A checkpoint of the cache, written into an object store as NIM_REPOSITORY_OVERRIDE looks for it there.

The keys are those that `sources.override` makes of the address and of each file, so that what is written here is what a
start with that override reads, in any bucket that was filled for NIM:
https://docs.nvidia.com/nim/large-language-models/latest/nim-repository-override.html

The manifest goes first: whoever reads while files are still missing is told so (`weights-incomplete`), instead of
taking a part for the whole. Each object has its digest beside it, by which a second run knows what need not be sent.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from nimctl.core.cache import storage_error
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import digests
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import OnProgress
from nimctl.core.fetch.retry import Patience, Stop
from nimctl.core.fetch.sources import checksums, override
from nimctl.core.fetch.sources.objectstore.upload import PATIENCE, Bucket
from nimctl.core.fetch.transfer.meter import Meter

_BLOCK = 4 * 2**20


@dataclass(frozen=True)
class Mirrored:
    """What was done: `sent` files of so many `bytes`; `kept` were there already. `address` is where they lie."""

    address: str
    files: int
    sent: int
    kept: int
    bytes: int


def place_of(uri: str, destination: str) -> str:
    """The address (`s3://bucket/key`) under which an override with `destination` looks for the checkpoint `uri`.

    Raises `weights-source-unsupported` for a checkpoint that no override takes the place of, and `config-invalid`.
    """
    if not destination.startswith(("s3://", "gs://")):
        raise NimctlError(
            "config-invalid",
            "nothing can be mirrored to there",
            cause="the destination is neither s3://bucket nor gs://bucket",
            fix="Name a bucket, such as s3://bucket or gs://bucket/folder; for a web server, fill a folder with "
            "`create-model-store`.",
        )
    address = override.apply(uri, destination).partition("?")[0]
    if not address.startswith(("s3://", "gs://")) or address == uri:
        raise NimctlError(
            "weights-source-unsupported",
            f"{uri!r:.200} is read from this machine, and never from a mirror",
            cause="NIM_REPOSITORY_OVERRIDE takes the place of remote sources alone",
            fix="Name a remote model with --model-uri (hf://, ngc://, s3://, gs://, https://).",
        )
    return address


def mirror(
    uri: str,
    manifest: Manifest,
    folder: Path,
    destination: str,
    *,
    access: Access,
    on_progress: OnProgress,
    stop: Stop,
    patience: Patience = PATIENCE,
) -> Mirrored:
    """Write the files of `manifest`, which lie in `folder`, to where an override with `destination` finds `uri`.

    Every byte is hashed on its way: an object whose digest would be wrong does not appear. Raises as `Bucket.put`,
    `weights-corrupt` for damaged files of the cache, and `interrupted` once `stop` is set.
    """
    address = place_of(uri, destination)
    meter = Meter(manifest.files, on_progress)
    bucket = Bucket(address, access, replace(patience, stop=stop, on_wait=meter.waiting))
    start = bucket.folder + quote("?file=", safe="")
    files = [_with_digest(folder, file, meter, stop) for file in manifest.files]
    there = bucket.sizes(start)
    sent = 0
    total = 0
    if "?" not in uri:  # single files of a checkpoint say nothing about the others
        document = json.dumps(replace(manifest, files=tuple(files)).to_json(), indent=1).encode()
        key, digest = start + quote(checksums.MANIFEST, safe=""), f"sha256:{hashlib.sha256(document).hexdigest()}"
        if there.get(key) != len(document) or bucket.digest(key) != digest:
            bucket.put(key, len(document), digest, lambda _: iter((document,)))
    for file in files:
        _require_wanted(stop)
        key = start + quote(file.path, safe="")
        if there.get(key) != file.size or bucket.digest(key) != file.digest:
            bucket.put(key, file.size, file.digest, lambda part, file=file: _parts(folder, file, part, meter, stop))  # type: ignore[misc]
            sent, total = sent + 1, total + file.size
        meter.set(file, "done")
    meter.finished()
    return Mirrored(address, len(files), sent, len(files) - sent, total)


def _with_digest(folder: Path, file: File, meter: Meter, stop: Stop) -> File:
    """`file` with a digest, computed where none is known: of what others left in the cache."""
    if file.digest:
        return file
    hasher = digests.sha256()
    done = 0
    for block in _blocks(folder / file.path, _BLOCK, stop):
        hasher.update(memoryview(block))
        done += len(block)
        meter.verifying(done, file)
    return replace(file, digest=f"sha256:{hasher.hexdigest()}")


def _parts(folder: Path, file: File, size: int, meter: Meter, stop: Stop) -> Iterator[bytes]:
    """The content in parts of `size` bytes. Raises `weights-corrupt` behind the last one, before the object appears."""
    assert file.expected is not None
    hasher = file.expected.hasher(file.size)
    done = 0
    for part in _blocks(folder / file.path, size, stop):
        hasher.update(memoryview(part))
        done += len(part)
        meter.moving("uploading", done, file)
        yield part
    if done != file.size or hasher.hexdigest() != file.expected.hex:
        raise NimctlError(
            "weights-corrupt",
            f"{file.path} in {folder} is damaged",
            cause=f"it does not have {file.size} bytes with the digest {file.digest}",
            fix="Repair the cache where there is a network (`nimctl cache verify --repair`), then run it again.",
        )


def _blocks(path: Path, size: int, stop: Stop) -> Iterator[bytes]:
    try:
        with path.open("rb") as content:
            while block := content.read(size):
                _require_wanted(stop)
                yield block
    except OSError as error:
        raise storage_error(error, path.parent) from error


def _require_wanted(stop: Stop) -> None:
    if stop.is_set:
        raise NimctlError(
            "interrupted",
            "the upload was stopped",
            cause="somebody asked for it",
            fix="Run it again: what has arrived is not sent again.",
        )

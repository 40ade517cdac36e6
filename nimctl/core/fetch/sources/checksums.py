"""What a folder of weights says of itself: our own manifest, or the lines of sha256sum. Pure.

A folder on a web server or in an object store has no revision and at best weak digests. A file beside the weights makes
up for it; `sha256sum -- * > SHA256SUMS` is enough:
https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import SCHEMA, File
from nimctl.core.fetch.sources import listing

MANIFEST = "nimctl.manifest.json"
SUMS = ("SHA256SUMS", "checksums.sha256")
LARGEST = 16 * 2**20  # bytes of such a document; ten thousand files need about 2 MB
_LINE = re.compile(r"(?P<hex>[0-9a-fA-F]{64}) [ *](?:\./)?(?P<path>.+)")
_SHOWN = 10


def manifest_files(body: bytes, shown: str) -> list[File]:
    """The files of a `nimctl.manifest/1` document. Raises `weights-source-failed`, `weights-unsafe-name`."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise listing.wrong_shape(shown, f"it is not JSON ({error})") from error
    if (schema := listing.member(document, "schema", str, shown)) != SCHEMA:
        raise listing.wrong_shape(shown, f"its schema is {schema!r:.100}, not {SCHEMA!r}")
    entries = listing.member(document, "files", list, shown)
    return listing.merged((_file(entry, shown) for entry in entries), shown)


def _file(entry: object, shown: str) -> File:
    path = listing.member(entry, "path", str, shown)
    size = listing.member(entry, "size", int, shown)
    digest = entry.get("digest") if isinstance(entry, dict) else None
    if digest is not None:
        digest = listing.member(entry, "digest", str, shown)
    return listing.remote_file(path, size, digest, shown)


def sums(body: bytes, shown: str) -> dict[str, str]:
    """Digest by path in the lines of sha256sum. Raises `weights-source-failed`, `weights-unsafe-name`."""
    found: dict[str, str] = {}
    try:
        lines = body.decode().splitlines()
    except UnicodeDecodeError as error:
        raise listing.wrong_shape(shown, "it is not text") from error
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:  # a line that begins with a backslash holds an escaped name, which no checkpoint needs
            raise listing.wrong_shape(shown, f"{line!r:.100} is no line of sha256sum")
        file = listing.remote_file(match["path"], 0, f"sha256:{match['hex'].lower()}", shown)
        if found.setdefault(file.path, str(file.digest)) != file.digest:
            raise listing.wrong_shape(shown, f"it gives two digests for {file.path!r:.200}")
    return found


def with_manifest(listed: Sequence[File], promised: Sequence[File], shown: str) -> list[File]:
    """The files of the manifest, which must all be there with their sizes. Raises `weights-incomplete`."""
    there = {file.path: file.size for file in listed}
    wrong = [file for file in promised if there.get(file.path) != file.size]
    if wrong:
        first = wrong[0]
        size = there.get(first.path)
        raise NimctlError(
            "weights-incomplete",
            f"{len(wrong)} of the {len(promised)} files that the manifest of {shown} promises are not there",
            cause=f"{first.path} is missing" if size is None else f"{first.path} has {size} bytes, not {first.size}",
            fix="Finish the copy of the folder, or write its manifest again.",
            evidence=[file.path for file in wrong[:_SHOWN]],
        )
    return list(promised)


def with_sums(listed: Iterable[File], digests: Mapping[str, str]) -> list[File]:
    """`listed` with the digests that are known."""
    return [replace(file, digest=digests.get(file.path, file.digest)) for file in listed]


def pinned(files: Iterable[File], pins: Mapping[str, str]) -> tuple[File, ...]:
    """`files` with the version that the pin (an ETag or a date) gives to each whose digest is not known."""
    return tuple(file if file.digest else replace(file, version=pins.get(file.path)) for file in files)


def revision(files: Iterable[File], pins: Mapping[str, str]) -> str:
    """A revision of content that has none: 40 hexadecimal digits over path, size and digest of every file.

    Where the digest is not known, the pin (an ETag or a date) stands in for it.
    """
    lines = sorted(f"{f.path} {f.size} {f.digest or pins.get(f.path, '')}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def cache_name(kind: str, address: str) -> str:
    """A name for `address` in the cache, such as `s3/bucket--folder-1a2b3c4d`: readable, safe, and no other's."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "--", address).strip("-.")[:80].rstrip("-.")
    return f"{kind}/{readable or 'root'}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"

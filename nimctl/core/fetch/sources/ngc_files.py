"""The documents of NGC's model API: models, versions and the files of a version. Pure."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.sources import listing

_CHECKSUM_LINE = re.compile(r"[0-9a-f]{64}  (?P<path>\S.*)")
_SHA256 = ("sha256_base64", "sha256Base64")


@dataclass(frozen=True)
class Page:
    """One page of the files of a version: `pages` and `total` count all of them, None where it is not told.

    `unsized` are paths that are listed without a size, as older versions are.
    """

    files: tuple[File, ...]
    unsized: tuple[str, ...]
    pages: int
    total: int | None


def page(document: Any, shown: str) -> Page:
    """The page in an answer of `.../versions/V/files`. Raises `weights-source-failed`, `weights-unsafe-name`."""
    succeeded(document, shown)
    about, version = (_object(document.get(name)) for name in ("paginationInfo", "modelVersion"))
    pages = _count(about.get("totalPages")) or 1
    total = _count(about.get("totalResults", version.get("totalFileCount")))
    listed = document.get("modelFiles")
    if listed is None and isinstance(document.get("filepath"), list):
        paths = tuple(listing.remote_file(str(path), 0, None, shown).path for path in document["filepath"])
        return Page((), paths, pages, total)
    if not isinstance(listed, list):
        raise listing.wrong_shape(shown, "'modelFiles' is missing")
    files = tuple(_file(entry, shown) for entry in listed)
    return Page(files, (), pages, total)


def succeeded(document: Any, shown: str) -> None:
    """Look at the status inside the document. Raises `weights-source-failed`."""
    if not isinstance(document, dict):
        raise listing.wrong_shape(shown, f"a JSON object is expected, not {type(document).__name__}")
    status = document.get("requestStatus")
    code = status.get("statusCode") if isinstance(status, dict) else None
    if code not in (None, "SUCCESS"):
        raise listing.wrong_shape(shown, f"its status is {code!r:.60}")


def versions(document: Any, shown: str) -> list[str]:
    """The versions in an answer of `.../versions`, in its order."""
    succeeded(document, shown)
    listed = document.get("modelVersions")
    entries = listed if isinstance(listed, list) else []
    return [e["versionId"] for e in entries if isinstance(e, dict) and isinstance(e.get("versionId"), str)]


def checksum_paths(text: str, shown: str) -> tuple[str, ...]:
    """The paths in a `checksums.blake3`. Raises `weights-source-failed`, `weights-unsafe-name`."""
    paths = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _CHECKSUM_LINE.fullmatch(line)
        if match is None:
            raise listing.wrong_shape(shown, f"a line reads {line!r:.100}")
        paths.append(listing.remote_file(match["path"], 0, None, shown).path)
    return tuple(paths)


def _file(entry: Any, shown: str) -> File:
    path: str = listing.member(entry, "path", str, shown)
    size: int = listing.member(entry, "sizeInBytes", int, shown)
    told = next((entry[name] for name in _SHA256 if entry.get(name)), None)
    return listing.remote_file(path, size, None if told is None else _sha256(told, shown), shown)


def _sha256(told: Any, shown: str) -> str:
    try:
        raw = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise listing.wrong_shape(shown, f"a checksum reads {told!r:.100}") from error
    return f"sha256:{raw.hex()}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

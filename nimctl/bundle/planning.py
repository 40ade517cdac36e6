"""What has to be brought: what is there from an earlier run, what costs no bytes, and whether the rest fits."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from nimctl.bundle.items import Item
from nimctl.bundle.journal import Journal
from nimctl.bundle.model import IMAGE, MOST_FILES, require_distinct
from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError

_LINKED_FROM = 64 * 2**20  # smaller ones are copied, so that who edits one does not reach the cache
_ALIGNED = 4096
_MARGIN = 16 * 2**20


def part_size(split: int | None) -> int | None:
    """The size of a full part: below `split`, as FAT32 holds files of less than 4 GiB."""
    return (split - 1) // _ALIGNED * _ALIGNED if split else None


def token_of(item: Item, part: int | None) -> str:
    """What a finished file is known by; what was cut into parts of another size has to be cut anew."""
    cut = f" {part}" if part and item.size > part else ""
    return item.token + cut


def stem_of(journal: Journal, item: Item) -> Path:
    """What the names of its unfinished files begin with."""
    return journal.private / hashlib.sha256(item.path.encode()).hexdigest()[:32]


def is_linkable(item: Item, part: int | None, private: Path) -> bool:
    """Whether it may become a clone of its origin, or another name for it."""
    if item.origin is None or item.size < _LINKED_FROM or (part and item.size > part):
        return False
    return item.origin.stat().st_dev == private.stat().st_dev


def require_room(items: Sequence[Item], journal: Journal, part: int | None, *, more: int = 0) -> None:
    """Refuse (`disk-full`), before the first byte, what will not fit; `more` bytes of an image come as a
    stream.

    Raises ValueError for more files than a bundle holds, and for names that clash.
    """
    require_distinct(item.path for item in items)
    if len(items) > MOST_FILES:
        raise ValueError(f"more than {MOST_FILES} files")
    folder = journal.folder
    blobs = (path for path in (folder / IMAGE / "blobs").rglob("*") if path.is_file())
    there = sum(path.stat().st_blocks * 512 for path in blobs)
    needed = max(0, more - there) if more else 0
    for item in items:
        if not (journal.finished(item.path, token_of(item, part)) or is_linkable(item, part, journal.private)):
            needed += item.size - _begun_bytes(item, journal)
    free = free_bytes(folder)
    if needed and needed + _MARGIN > free:
        raise NimctlError(
            "disk-full",
            f"{folder} has no room for the bundle",
            cause=f"{needed / 1e9:,.2f} GB more are needed and {free / 1e9:,.2f} GB are free",
            fix="Free space there, or name a folder on a larger disk. What is there already is kept.",
        )


def _begun_bytes(item: Item, journal: Journal) -> int:
    stem = stem_of(journal, item)
    return min(item.size, sum(path.stat().st_size for path in stem.parent.glob(f"{stem.name}.*")))

"""Whether a download will fit, asked for the whole plan before its first byte."""

import os
from collections.abc import Iterable
from pathlib import Path

from nimctl.core.cache import RepoPaths, free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File

# Room for folders, links, journals and the marker beside the files themselves.
_MARGIN_BYTES = 4 * 2**20
_MARGIN_INODES = 16
_INODES_A_FILE = 4  # its data, its journal, its successor while it is rewritten, its link


def require_room(repo: RepoPaths, private: Path, files: Iterable[File], source: str) -> None:
    """Refuse (`disk-full`) what will not fit in bytes or in inodes: `files` are those that have to be fetched.

    What their partial files in `private` take up already counts as there.
    """
    wanted = {file.key: file for file in files}
    if not wanted:
        return
    there = sum(_allocated(private / f"{key}.data") for key in wanted)
    needed = sum(file.size for file in wanted.values()) - there + _MARGIN_BYTES
    inodes_needed = _INODES_A_FILE * len(wanted) + _MARGIN_INODES
    free, found = free_bytes(repo.blobs), os.statvfs(repo.blobs)
    enough_inodes = not found.f_files or found.f_favail >= inodes_needed
    if free >= needed and enough_inodes:
        return
    raise NimctlError(
        "disk-full",
        f"{repo.folder} has no room for {source}",
        cause=f"{_amount(needed)} more are needed and {_amount(free)} are free"
        if free < needed
        else f"{inodes_needed} inodes are needed and {found.f_favail} are free",
        fix="Free space there (`nimctl cache prune` lists what can go), or name a folder on a larger disk with "
        "--cache. What is there already is kept.",
    )


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 2**20:.1f} MiB"

"""Filesystems, and the cache folder with what is in it."""

import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nimctl.core.cache import CachePaths
from nimctl.core.facts import CacheEntry, CacheFacts, DiskFacts

# A checkpoint has some hundred files; a cache of ten models is seen whole, and a misplaced folder costs no minute.
MOST_ENTRIES = 2_000
# Fifty examples prove a cause as well as two thousand, and fit into a bug report.
MOST_EXAMPLES = 50

_OCTAL = re.compile(r"\\([0-7]{3})")


def look_at_disk(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> DiskFacts | None:
    """The filesystem that holds `path`, or its nearest existing parent; None when nothing of it can be seen."""
    for place in (path, *path.parents):
        try:
            room, found = os.statvfs(place), place.stat()
        except OSError:
            continue
        return DiskFacts(
            path=str(place),
            filesystem=_filesystem(place, mountinfo),
            device=f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}",
            total=room.f_blocks * room.f_frsize,
            free=room.f_bavail * room.f_frsize,
            inodes_free=room.f_favail if room.f_files else None,  # btrfs counts no inodes, and reports zero of zero
            read_only=bool(room.f_flag & os.ST_RDONLY),
        )
    return None


def _filesystem(place: Path, mountinfo: Path) -> str | None:
    """The type of the filesystem at `place`: the longest mount point above it, the last mounted one of equals."""
    try:
        real = Path(os.path.realpath(place))
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        fields, separator, rest = line.partition(" - ")
        if not separator or len(fields.split()) < 5 or not rest.split():
            continue
        mount = Path(_OCTAL.sub(lambda m: chr(int(m[1], 8)), fields.split()[4]))
        if (real == mount or mount in real.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), rest.split()[0]
    return kind


def look_at_cache(path: Path) -> CacheFacts:
    """The cache folder itself and its filesystem, not yet what is in it."""
    facts = CacheFacts(str(path), exists=None, disk=look_at_disk(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        parent = next((p for p in path.parents if p.is_dir()), Path("/"))
        return replace(facts, exists=False, writable=os.access(parent, os.W_OK | os.X_OK))
    except OSError as error:
        return replace(facts, problem=f"{error.filename or path}: {error.strerror}")
    if not stat.S_ISDIR(found.st_mode):
        return replace(facts, exists=False, problem=f"{path} is not a folder", writable=False)
    mode = stat.S_IMODE(found.st_mode)
    return replace(
        facts,
        exists=True,
        uid=found.st_uid,
        gid=found.st_gid,
        mode=f"{mode:04o}",
        group_writable=_group_bits(found) & 0o3 == 0o3,
        writable=os.access(path, os.W_OK | os.X_OK),
    )


def look_into_cache(path: Path, until: float) -> CacheFacts:
    """What in the cache group 0 cannot read or write, looking until `until` (of `time.monotonic`) at the latest.

    Nothing is followed and nothing is opened. The private engine caches below `engine/` belong to one user each by
    design, and are left out.
    """
    seen = size = 0
    unwritable: list[CacheEntry] = []
    unreadable: list[CacheEntry] = []
    for entry in _walk(path, CachePaths(path).engine):
        if seen == MOST_ENTRIES or time.monotonic() > until:
            break
        seen += 1
        try:
            found = entry.lstat()
        except OSError:
            continue
        size += found.st_blocks * 512  # what it takes, which for a download in progress is less than its length
        is_folder = stat.S_ISDIR(found.st_mode)
        bits = _group_bits(found)
        shown = CacheEntry(
            str(entry.relative_to(path)), found.st_uid, found.st_gid, f"{stat.S_IMODE(found.st_mode):04o}"
        )
        if is_folder and bits & 0o3 != 0o3 and len(unwritable) < MOST_EXAMPLES:
            unwritable.append(shown)
        needed = 0o5 if is_folder else 0o4
        if (is_folder or stat.S_ISREG(found.st_mode)) and bits & needed != needed and len(unreadable) < MOST_EXAMPLES:
            unreadable.append(shown)
    return CacheFacts(
        str(path),
        exists=None,
        entries_seen=seen,
        entries_bytes=size,
        unwritable_entries=tuple(unwritable),
        unreadable_entries=tuple(unreadable),
    )


def _group_bits(found: os.stat_result) -> int:
    """The rwx bits for a process of group 0 that does not own the file: its group's when that is 0, else others'."""
    return (found.st_mode >> 3 if found.st_gid == 0 else found.st_mode) & 0o7


def _walk(root: Path, leave_out: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(root):
        folder = Path(name)
        if folder == leave_out:
            folders.clear()
            continue
        folders.sort()
        for child in (*folders, *sorted(files)):
            yield folder / child

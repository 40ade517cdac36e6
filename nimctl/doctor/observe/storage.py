"""Filesystems, and the cache folder with what is in it."""

import os
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from nimctl.core.cache import CachePaths
from nimctl.core.facts import CacheEntry, CacheFacts, DiskFacts, DockerFacts
from nimctl.doctor.observe.acl import AccessList, group_0_may, read_acl
from nimctl.doctor.observe.files import regular, valid
from nimctl.doctor.observe.mounts import mount_of

# A checkpoint has some hundred files; a cache of ten models is seen whole, and a misplaced folder costs no minute.
MOST_ENTRIES = 2_000
# Fifty examples prove a cause as well as two thousand, and fit into a bug report.
MOST_EXAMPLES = 50

# A containerd that is a service of its own, as Docker's packages install it: its folder unless its configuration names
# another. https://github.com/containerd/containerd/blob/main/docs/man/containerd-config.toml.5.md
_CONTAINERD = Path("/var/lib/containerd")
_CONTAINERD_CONFIG = Path("/etc/containerd/config.toml")
_LARGEST_CONFIG = 2**20  # bytes; a complete one, as containerd prints it, has some 10 KB


def look_at_disk(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> DiskFacts | None:
    """The filesystem that holds `path`, or its nearest existing parent; None when nothing of it can be seen."""
    for place in (path, *path.parents):
        try:
            room, found = os.statvfs(place), place.stat()
        except OSError:
            continue
        mount = mount_of(place, mountinfo)
        sized = room.f_blocks > 0  # ramfs has no limit, and reports none of nothing
        return DiskFacts(
            path=valid(str(place)),
            filesystem=mount.filesystem if mount else None,
            device=f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}",
            total=room.f_blocks * room.f_frsize if sized else None,
            free=room.f_bavail * room.f_frsize if sized else None,
            inodes_free=room.f_favail if room.f_files else None,  # btrfs counts no inodes, and reports zero of zero
            read_only=bool(room.f_flag & os.ST_RDONLY),
            options=mount.options if mount else (),
        )
    return None


def look_at_image_store(
    docker: DockerFacts, containerd: Path = _CONTAINERD, config: Path = _CONTAINERD_CONFIG
) -> DiskFacts | None:
    """The filesystem that pulled images take room on, where that is a folder of this host (not for Docker Desktop).

    Docker's own stores lie in its data root. With the containerd image store it is containerd's folder, which is below
    the data root where Docker starts containerd itself. https://docs.docker.com/engine/storage/containerd/
    """
    if docker.data_root is None or docker.kind == "desktop":
        return None
    root = Path(docker.data_root)
    places = [root]
    if docker.containerd_store:
        services = [] if docker.rootless else [_root_of(config), containerd]
        places = [*(place for place in services if place is not None), root / "containerd" / "daemon", root]
    for place in places:
        with suppress(OSError):  # a folder that this user may not see
            if place.is_dir():
                return look_at_disk(place)
    return None


def _root_of(config: Path) -> Path | None:
    """What containerd's configuration says of its folder."""
    with suppress(OSError, ValueError, RecursionError):
        root = tomllib.loads(regular(config, _LARGEST_CONFIG)).get("root")
        return Path(root) if isinstance(root, str) and root.startswith("/") else None
    return None


def look_at_cache(path: Path) -> CacheFacts:
    """The cache folder itself and its filesystem, not yet what is in it."""
    shown = valid(str(path))
    facts = CacheFacts(shown, exists=None, disk=look_at_disk(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        parent = next((p for p in path.parents if p.is_dir()), Path("/"))
        return replace(facts, exists=False, writable=os.access(parent, os.W_OK | os.X_OK))
    except OSError as error:
        return replace(facts, problem=f"{shown}: {error.strerror}")
    if not stat.S_ISDIR(found.st_mode):
        return replace(facts, exists=False, problem=f"{shown} is not a folder", writable=False)
    real = Path(os.path.realpath(path))  # the lists lie on the folder, not on a link to it
    acl, default = read_acl(real, "access"), read_acl(real, "default")
    return replace(
        facts,
        exists=True,
        uid=found.st_uid,
        gid=found.st_gid,
        mode=f"{stat.S_IMODE(found.st_mode):04o}",
        group_writable=group_0_may(found, acl, 0o3),
        writable=os.access(path, os.W_OK | os.X_OK),
        acl=_there(acl),
        default_acl=_there(default),
        # What a process of group 0 makes has group 0, and gets the default list's entry for the group.
        default_acl_writable=default.group_0_may(0o3, gid=0) if isinstance(default, AccessList) else None,
        selinux_label=_selinux_label(real),
    )


def look_into_cache(path: Path, until: float, uid: int) -> CacheFacts:
    """What in the cache `uid` with group 0 cannot read or write, until `until` (of `time.monotonic`) at the latest.

    Nothing is followed and nothing is opened. The private engine caches below `engine/` belong to one user each by
    design, and are left out. Access lists of entries are asked for only where the cache folder itself has one: that is
    where they come from, and over a network each costs an answer of the server.
    """
    seen = size = 0
    unwritable: list[CacheEntry] = []
    unreadable: list[CacheEntry] = []
    listed = any(read_acl(path, kind) not in (False, None) for kind in ("access", "default"))
    for name, found in _walk(path, CachePaths(path).engine):
        if seen == MOST_ENTRIES or time.monotonic() > until:
            break
        seen += 1
        size += found.st_blocks * 512  # what it takes, which for a download in progress is less than its length
        is_folder = stat.S_ISDIR(found.st_mode)
        if not is_folder and not stat.S_ISREG(found.st_mode):
            continue
        acl = read_acl(path / name, "access") if listed else False
        shown = CacheEntry(valid(name), found.st_uid, found.st_gid, f"{stat.S_IMODE(found.st_mode):04o}")
        if is_folder and not _may(found, acl, uid, 0o3) and len(unwritable) < MOST_EXAMPLES:
            unwritable.append(shown)
        if not _may(found, acl, uid, 0o5 if is_folder else 0o4) and len(unreadable) < MOST_EXAMPLES:
            unreadable.append(shown)
    return CacheFacts(
        valid(str(path)),
        exists=None,
        entries_seen=seen,
        entries_bytes=size,
        unwritable_entries=tuple(unwritable),
        unreadable_entries=tuple(unreadable),
    )


def _may(found: os.stat_result, acl: AccessList | bool | None, uid: int, bits: int) -> bool:
    """Whether `uid` with group 0 has all of `bits`: an owner goes by the owner's bits, whatever the group's are."""
    if found.st_uid == uid:
        return found.st_mode >> 6 & bits == bits
    return group_0_may(found, acl, bits)


def _walk(root: Path, leave_out: Path) -> Iterator[tuple[str, os.stat_result]]:
    """What lies below `root`, by its path below it; a folder before what is in it, and by name in each.

    No folder is read further than needed, because one may hold millions.
    """
    folders = [""]
    while folders:
        inside = folders.pop()
        place = os.path.join(root, inside)  # noqa: PTH118 (a Path for each of thousands costs more than the look)
        if place == str(leave_out):
            continue
        try:
            with os.scandir(place) as entries:
                some = sorted(islice(entries, MOST_ENTRIES + 1), key=lambda entry: entry.name)
        except OSError:
            continue
        deeper = []
        for entry in some:
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                name = f"{inside}/{entry.name}" if inside else entry.name
                yield name, found
                if stat.S_ISDIR(found.st_mode):
                    deeper.append(name)
        folders += reversed(deeper)


def _there(acl: AccessList | bool | None) -> bool | None:
    return True if isinstance(acl, AccessList) else acl


def _selinux_label(path: Path) -> str | None:
    with suppress(OSError):
        return os.getxattr(path, "security.selinux").rstrip(b"\0").decode("utf-8", "replace")
    return None

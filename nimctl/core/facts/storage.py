"""Facts about filesystems and the cache folder. Sizes in bytes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DiskFacts:
    """A filesystem as seen from `path` (the nearest existing parent of the path asked for).

    `device` ("major:minor") tells whether two paths share one filesystem. `options` are its mount options: those
    without a value, and of the others the few that say how it behaves; names of servers, shares and users are left out.
    """

    path: str
    filesystem: str | None = None
    device: str | None = None
    total: int | None = None
    free: int | None = None
    inodes_free: int | None = None
    read_only: bool | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder in the cache, by its path below it. `mode` is octal text like "0600"."""

    path: str
    uid: int
    gid: int
    mode: str


@dataclass(frozen=True)
class WriteTest:
    """Whether a process of `uid`:`gid` could make, link, rename and remove a file in the cache folder.

    `ok` is None where this user cannot become that one to try; `detail` says why. Where `ok` is False, `detail` is the
    system's word of refusal, `step` what was refused and `folder` where, below the cache ("." is the cache itself).
    `as_root` tells whether root may write there, which the server of a network filesystem may refuse.
    """

    uid: int
    gid: int
    ok: bool | None = None
    detail: str | None = None
    step: Literal["make", "link", "rename", "remove"] | None = None
    folder: str | None = None
    as_root: bool | None = None


@dataclass(frozen=True)
class HeldWeights:
    """How much of one model's weights (`source`, its address) the cache holds already. `complete`: all and verified."""

    source: str
    size: int = 0
    complete: bool = False


@dataclass(frozen=True)
class CacheFacts:
    """The cache folder. `mode` is octal text like "2770"; `group_writable` answers: may a process of group 0 write?

    `writable` answers the same for the user who asks, or whether that user may make a folder that does not exist.
    `acl` tells whether POSIX access lists lie on it, `default_acl` whether new files inherit one, and where they do,
    `default_acl_writable` whether a process of group 0 may write in folders that are made in it. `selinux_label` is its
    security label.
    The entries are folders that group 0 cannot write, and files and folders that it cannot read; private engine caches
    left out, `entries_seen` of them looked at, which take `entries_bytes`. `hangs`: the filesystem did not answer.
    """

    path: str
    exists: bool | None
    hangs: bool = False
    problem: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: str | None = None
    group_writable: bool | None = None
    writable: bool | None = None
    acl: bool | None = None
    default_acl: bool | None = None
    default_acl_writable: bool | None = None
    selinux_label: str | None = None
    write_test: WriteTest | None = None
    entries_seen: int | None = None
    entries_bytes: int | None = None
    unwritable_entries: tuple[CacheEntry, ...] = ()
    unreadable_entries: tuple[CacheEntry, ...] = ()
    held: HeldWeights | None = None
    disk: DiskFacts | None = None

"""The mount that holds a path: kind of filesystem and options, without what names servers, shares or users."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
# Options whose value says how the filesystem behaves. All other values may name somebody or something.
_TELLING = {
    *("aname", "cache", "data", "errors", "local_lock", "lookupcache", "nfsvers", "proto", "sec", "trans", "vers"),
    *("dir_mode", "dmask", "file_mode", "fmask", "gid", "group_id", "mode", "uid", "umask", "user_id"),
    *("nr_inodes", "size"),
}
_FLAG = re.compile(r"[a-z][a-z0-9_]{0,31}")
# These mount as plain "fuse" and are known by their source alone:
# https://github.com/awslabs/mountpoint-s3/blob/main/doc/SEMANTICS.md
_FUSE_SOURCES = ("mountpoint-s3",)


@dataclass(frozen=True)
class Mount:
    """A mount's kind of filesystem, and what of its options may be shown."""

    filesystem: str
    options: tuple[str, ...] = ()


def mount_of(place: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Mount | None:
    """The mount that holds `place`: the longest mount point above it, the last mounted one of equals.

    None where that cannot be told. Raises nothing. Format: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    try:
        real = os.path.realpath(place)
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, found = -1, None
    for line in lines:
        fields, separator, rest = line.partition(" - ")
        words, tail = fields.split(), rest.split(maxsplit=2)
        if not separator or len(words) < 5 or not tail:
            continue
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), words[4])
        if len(point) >= best and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, found = len(point), (words, tail)
    return None if found is None else _mount(*found)


def _mount(words: list[str], tail: list[str]) -> Mount:
    kind = tail[0]
    if kind == "fuse" and len(tail) > 1 and tail[1] in _FUSE_SOURCES:
        kind = f"fuse.{tail[1]}"
    own = words[5].split(",") if len(words) > 5 else []
    # 9p below WSL packs several into one: aname=drvfs;path=C:\;uid=1000
    shared = re.split("[,;]", tail[2]) if len(tail) > 2 else []
    return Mount(kind, tuple(dict.fromkeys(option for option in (*own, *shared) if _may_be_shown(option))))


def _may_be_shown(option: str) -> bool:
    name, has_value, _ = option.partition("=")
    return name in _TELLING if has_value else _FLAG.fullmatch(option) is not None

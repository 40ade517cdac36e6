"""POSIX access lists as the kernel keeps them: who of group 0 may do what, where the mode bits alone do not say."""

import errno
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# The extended attribute: a version, then entries of tag, permissions and id, little-endian.
# https://github.com/torvalds/linux/blob/master/include/uapi/linux/posix_acl_xattr.h
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x04, 0x08, 0x10, 0x20
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class AccessList:
    """The entries of one list as (tag, rwx bits, id)."""

    entries: tuple[tuple[int, int, int], ...]

    def group_0_may(self, bits: int, gid: int) -> bool:
        """Whether a process of group 0, which owns nothing and has no entry of its own, has all of `bits` (rwx).

        `gid` owns the file. The rules are those of acl(5): any entry of the process's groups may grant, limited by the
        mask; others' bits count only where no entry matches. https://man7.org/linux/man-pages/man5/acl.5.html
        """
        mask = next((perms for tag, perms, _ in self.entries if tag == _MASK), 0o7)
        matching = [
            perms & mask
            for tag, perms, owner in self.entries
            if (tag == _GROUP_OWNER and gid == 0) or (tag == _GROUP and owner == 0)
        ]
        if not matching:
            matching = [perms for tag, perms, _ in self.entries if tag == _OTHER]
        return any(perms & bits == bits for perms in matching)


def read_acl(path: Path, kind: Literal["access", "default"]) -> AccessList | bool | None:
    """The list on `path`; False where there is none, True where its form is not known, None where it cannot be seen."""
    try:
        raw = os.getxattr(path, f"system.posix_acl_{kind}", follow_symlinks=False)
    except OSError as error:
        return False if error.errno in _NONE else None
    if len(raw) < _VERSION.size or _VERSION.unpack_from(raw) != (2,) or (len(raw) - _VERSION.size) % _ENTRY.size:
        return True
    return AccessList(tuple(_ENTRY.iter_unpack(raw[_VERSION.size :])))


def group_0_may(found: os.stat_result, acl: AccessList | bool | None, bits: int) -> bool:
    """Whether a process of group 0 that does not own the file has all of `bits` (rwx): by `acl`, else by the mode.

    Without a list the group's bits count when its group is 0, else others'.
    """
    if isinstance(acl, AccessList):
        return acl.group_0_may(bits, found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    return (mode >> 3 if found.st_gid == 0 else mode) & bits == bits

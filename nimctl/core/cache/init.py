"""Making a folder a cache that any `uid:0` can use: mkdir, group 0, mode 2770, files g+rwX, no sticky bit."""

import contextlib
import errno
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nimctl.core.cache.paths import FOLDER_MODE, CachePaths
from nimctl.core.cache.problems import storage_error
from nimctl.core.errors import NimctlError

# Never a cache, whatever is typed: the folders of a Linux system that `init` would break.
_SYSTEM = re.compile(
    r"/|/(dev|dev/shm|home|media|mnt|opt|root|run|srv|tmp|usr|usr/local|var|var/(cache|lib|log|tmp))"
    r"|/(usr/)?(bin|lib\w*|sbin|share)(/.*)?|/(boot|etc|proc|sys)(/.*)?"
)


@dataclass(frozen=True)
class Action:
    """One change of `cache init`: `new` is a group id for chgrp, else mode bits; `old` is None for a new folder."""

    kind: Literal["mkdir", "chgrp", "chmod"]
    path: Path
    new: int
    old: int | None = None

    def __str__(self) -> str:
        if self.kind == "chgrp":
            return f"chgrp {self.new} {shlex.quote(str(self.path))}  # was {self.old}"
        was = "" if self.old is None else f"  # was {self.old:04o}"
        return f"{self.kind} {self.new:04o} {shlex.quote(str(self.path))}{was}"


@dataclass(frozen=True)
class InitReport:
    """What `apply_init` did, in numbers."""

    root: Path
    examined: int
    made: int
    regrouped: int
    remoded: int

    @property
    def summary(self) -> str:
        """The numbers as one line for people."""
        if not (self.made or self.regrouped or self.remoded):
            return f"nothing to change in {self.examined} folders and files"
        return f"{self.made} folders made, group of {self.regrouped} and mode of {self.remoded} entries changed"

    def to_json(self) -> dict[str, int]:
        """The numbers as part of the `--json` document."""
        numbers = {"examined": self.examined, "made": self.made}
        return {**numbers, "regrouped": self.regrouped, "remoded": self.remoded}


def plan_init(root: Path) -> list[Action]:
    """Every change that makes `root` a cache for any `uid:0`; empty when it is one. Changes nothing.

    Links are not followed, other users' private engine caches are left alone. Raises `usage` for a system or home
    folder, `cache-not-writable` where the tree cannot be read.
    """
    return _plan(_checked(root))[0]


def apply_init(root: Path) -> InitReport:
    """Carry out `plan_init(root)`, and prove that nothing is left to do.

    Refuses before the first change when this user may not make all of them. Raises `cache-not-writable` with the
    commands that an administrator has to type, `disk-full`, `cache-unreachable`.
    """
    root = _checked(root)
    actions, examined = _plan(root)
    denied = [a for a in actions if not _permitted(a)]
    if denied:
        raise _needs_sudo(root, f"{len(denied)} of {len(actions)} changes need another user, first: {denied[0]}")
    try:
        for action in actions:
            _apply(root, action)
        left = _plan(root)[0]
    except PermissionError as error:
        raise _needs_sudo(root, f"{error.filename or root}: {error.strerror}") from error
    except OSError as error:
        raise storage_error(error, root) from error
    if left:
        raise _needs_sudo(root, f"the filesystem did not keep the change: {left[0]}")
    count = {kind: sum(a.kind == kind for a in actions) for kind in ("mkdir", "chgrp", "chmod")}
    return InitReport(root, examined, count["mkdir"], count["chgrp"], count["chmod"])


def _checked(root: Path) -> Path:
    root = Path(os.path.realpath(root))
    home = None
    with contextlib.suppress(OSError, KeyError):
        home = Path(os.path.realpath(pwd.getpwuid(root.stat().st_uid).pw_dir))
    if _SYSTEM.fullmatch(str(root)) or root == home:
        example = root / "nim-cache"
        example = Path("/var/lib/nim") if _SYSTEM.fullmatch(str(example)) else example
        raise NimctlError(
            "usage",
            f"{root} cannot be a cache folder",
            cause="`cache init` changes group and mode of everything below the folder, and this one holds other things",
            fix=f"Name a folder of its own, for example {example}.",
        )
    return root


def _plan(root: Path) -> tuple[list[Action], int]:
    paths = CachePaths(root)
    wanted = [*reversed([p for p in root.parents if not p.exists()]), root, paths.hub.parent, paths.hub, paths.engine]
    actions: list[Action] = []
    for folder in wanted:
        if not os.path.lexists(folder):
            inside = folder == root or root in folder.parents
            actions.append(Action("mkdir", folder, FOLDER_MODE if inside else 0o755))
    examined = 0
    if root.is_dir():
        for path, found in _entries(root):
            examined += 1
            actions += _repairs(path, found)
    return actions, examined


def _entries(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Folders and plain files at and below `root`, folders first; links and the private engine caches left out."""

    def fail(error: OSError) -> None:
        raise _needs_sudo(root, f"{error.filename} cannot be read: {error.strerror}") from error

    private = CachePaths(root).engine
    for name, folders, files in os.walk(root, onerror=fail):
        folder = Path(name)
        yield folder, folder.lstat()
        if folder == private:
            folders.clear()
            continue
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                found = (folder / file).lstat()
                if stat.S_ISREG(found.st_mode):
                    yield folder / file, found


def _repairs(path: Path, found: os.stat_result) -> Iterator[Action]:
    mode = stat.S_IMODE(found.st_mode)
    group = 0o070 if mode & 0o111 else 0o060
    wanted = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else (mode | group) & ~stat.S_ISVTX
    if found.st_gid != 0:
        yield Action("chgrp", path, 0, found.st_gid)
    if mode != wanted:
        yield Action("chmod", path, wanted, mode)


def _permitted(action: Action) -> bool:
    me = os.geteuid()
    if me == 0:
        return True
    if 0 not in (os.getegid(), *os.getgroups()):
        return False  # chgrp 0 is refused, and setgid on a foreign group is dropped without a word
    return action.kind == "mkdir" or action.path.lstat().st_uid == me


def _apply(root: Path, action: Action) -> None:
    if action.kind == "mkdir":
        action.path.mkdir(exist_ok=True)
        inside = action.path == root or root in action.path.parents
        with _opened(action.path) as place:
            # A folder that root makes in somebody's home belongs to that person.
            owner = action.path.parent.stat().st_uid if os.geteuid() == 0 else -1
            os.chown(place, owner, 0 if inside else -1)
            Path(place).chmod(action.new)
        return
    with _opened(action.path, root) as place:
        if action.kind == "chgrp":
            os.chown(place, -1, action.new)
        else:
            Path(place).chmod(action.new)


@contextlib.contextmanager
def _opened(path: Path, root: Path | None = None) -> Iterator[str]:
    """A name for exactly the file at `path`, reached from `root` without following a link that was slipped in."""
    top = root or path
    handle = os.open(top, os.O_PATH | os.O_NOFOLLOW)
    try:
        for part in path.relative_to(top).parts:
            deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = deeper
        if stat.S_ISLNK(os.fstat(handle).st_mode):
            raise OSError(errno.ELOOP, "a link took this file's place", str(path))
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _needs_sudo(root: Path, cause: str) -> NimctlError:
    folder = shlex.quote(str(root))
    shared = f"sudo find {folder} -path {shlex.quote(f'{root}/engine/*')} -prune -o"
    commands = (
        f"mkdir -p {folder}",
        f"{shared} \\( -type d -o -type f \\) -exec chgrp 0 {{}} +",
        f"{shared} -type d -exec chmod 2770 {{}} +",
        f"{shared} -type f -exec chmod g+rwX,-t {{}} +",
    )
    return NimctlError(
        "cache-not-writable",
        f"the cache folder {root} cannot be prepared by uid {os.geteuid()}",
        cause=cause,
        fix=f"As an administrator: {' && '.join(commands)}",
    )

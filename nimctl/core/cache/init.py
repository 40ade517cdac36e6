"""Making a folder a cache that any `uid:0` can use: mkdir, group 0, mode 2770, files g+rwX, no sticky bit."""

import contextlib
import errno
import os
import pwd
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nimctl.core.cache.paths import FOLDER_MODE, CachePaths, missing_folders
from nimctl.core.cache.problems import storage_error
from nimctl.core.errors import NimctlError

# Never a cache, whatever is typed: the folders of a Linux system that `init` would break.
_SYSTEM = re.compile(
    r"/|/(dev|dev/shm|home|media|mnt|opt|root|run|srv|tmp|usr|usr/local|var|var/(cache|lib|log|tmp))"
    r"|/(usr/)?(bin|lib\w*|sbin|share)(/.*)?|/(boot|etc|proc|sys)(/.*)?"
)


@dataclass(frozen=True)
class Identity:
    """Which file was examined: type, inode, owner, and how many names it has. Another file in its place differs."""

    kind: int
    device: int
    inode: int
    owner: int  # a freed inode number is given out again at once
    links: int  # 1 for a folder, whose count changes with every folder made in it

    @staticmethod
    def of(found: os.stat_result) -> "Identity":
        """The identity of what was found."""
        links = found.st_nlink if stat.S_ISREG(found.st_mode) else 1
        return Identity(stat.S_IFMT(found.st_mode), found.st_dev, found.st_ino, found.st_uid, links)


@dataclass(frozen=True)
class Action:
    """One change of `cache init`: `new` is a group id for chgrp, else mode bits (None: those that the umask gives).

    `old` is None for a new folder; `file` is the one that was examined, and the only one that may be changed.
    """

    kind: Literal["mkdir", "chgrp", "chmod"]
    path: Path
    new: int | None
    old: int | None = None
    file: Identity | None = None

    def __str__(self) -> str:
        if self.kind == "chgrp":
            return f"chgrp {self.new} {shlex.quote(str(self.path))}  # was {self.old}"
        mode = "" if self.new is None else f" {self.new:04o}"
        was = "" if self.old is None else f"  # was {self.old:04o}"
        return f"{self.kind}{mode} {shlex.quote(str(self.path))}{was}"


@dataclass(frozen=True)
class InitReport:
    """What `apply_init` did, in numbers; `skipped` files have a second name outside the cache and were left alone."""

    root: Path
    examined: int
    made: int
    regrouped: int
    remoded: int
    skipped: int = 0

    @property
    def summary(self) -> str:
        """The numbers as one line for people."""
        left = ""
        if self.skipped:
            left = f"; {self.skipped} files left alone, because they have another name (hard link) outside the cache"
        if not (self.made or self.regrouped or self.remoded):
            return f"nothing to change in {self.examined} folders and files{left}"
        return f"{self.made} folders made, group of {self.regrouped} and mode of {self.remoded} entries changed{left}"

    def to_json(self) -> dict[str, int]:
        """The numbers as part of the `--json` document."""
        numbers = {"examined": self.examined, "made": self.made}
        return {**numbers, "regrouped": self.regrouped, "remoded": self.remoded, "skipped": self.skipped}


@dataclass(frozen=True)
class _Plan:
    actions: list[Action]
    examined: int = 0
    skipped: int = 0


def plan_init(root: Path) -> list[Action]:
    """Every change that makes `root` a cache for any `uid:0`; empty when it is one. Changes nothing.

    Links are not followed, other users' private engine caches are left alone, and so is a file with a hard link
    outside: who made that link may not be who owns the file. Raises `usage` for a system or home folder,
    `cache-not-writable` where the tree cannot be read.
    """
    return _plan(_checked(root)).actions


def apply_init(root: Path) -> InitReport:
    """Carry out `plan_init(root)`, and prove that nothing is left to do.

    Refuses before the first change when this user may not make all of them, and changes no file but those that were
    examined. Raises `cache-not-writable` with the commands that an administrator has to type, `disk-full`,
    `cache-unreachable`.
    """
    root = _checked(root)
    plan = _plan(root)
    denied = [a for a in plan.actions if not _permitted(a)]
    if denied:
        raise _needs_sudo(root, f"{len(denied)} of {len(plan.actions)} changes need another user, first: {denied[0]}")
    try:
        for action in plan.actions:
            _apply(root, action)
        left = _plan(root).actions
    except PermissionError as error:
        raise _needs_sudo(root, f"{error.filename or root}: {error.strerror}") from error
    except OSError as error:
        raise storage_error(error, root) from error
    if left:
        raise _needs_sudo(root, f"the filesystem did not keep the change: {left[0]}")
    count = Counter(action.kind for action in plan.actions)
    return InitReport(root, plan.examined, count["mkdir"], count["chgrp"], count["chmod"], plan.skipped)


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


def _plan(root: Path) -> _Plan:
    paths = CachePaths(root)
    # A dictionary, because what is missing above one folder is missing above the next as well.
    missing = dict(m for folder in (root, paths.hub, paths.engine) for m in missing_folders(folder, root))
    actions = [Action("mkdir", folder, mode) for folder, mode in missing.items()]
    if not root.is_dir():
        return _Plan(actions)
    entries = list(_entries(root))
    names = Counter(Identity.of(found) for _, found in entries)
    skipped = 0
    for path, found in entries:
        if _is_foreign(found, names[Identity.of(found)]):
            skipped += 1
        else:
            actions += _repairs(path, found)
    return _Plan(actions, len(entries), skipped)


def _is_foreign(found: os.stat_result, names_here: int) -> bool:
    """True for a file that has a name outside the cache as well; without root, one's own are no danger to anybody."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink <= names_here:
        return False
    return os.geteuid() == 0 or found.st_uid != os.geteuid()


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
    # A program's setgid bit would make its owner's code run with group 0, so files keep no bit beyond rwx.
    wanted = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else (mode | group) & 0o777
    if found.st_gid != 0:
        yield Action("chgrp", path, 0, found.st_gid, Identity.of(found))
    # The kernel takes setuid and setgid from a program whose group changes; chmod says it for every filesystem.
    if mode != wanted:
        yield Action("chmod", path, wanted, mode, Identity.of(found))


def _permitted(action: Action) -> bool:
    me = os.geteuid()
    if me == 0:
        return True
    if 0 not in (os.getegid(), *os.getgroups()):
        return False  # chgrp 0 is refused, and setgid on a foreign group is dropped without a word
    return action.kind == "mkdir" or action.path.lstat().st_uid == me


def _apply(root: Path, action: Action) -> None:
    if action.kind == "mkdir":
        _make(root, action)
        return
    assert action.new is not None  # only folders are made without a mode
    with _opened(root, action.path) as handle:
        if Identity.of(os.fstat(handle)) != action.file:
            raise OSError(errno.EBUSY, "another file took this one's place while it was prepared", str(action.path))
        place = f"/proc/self/fd/{handle}"
        if action.kind == "chgrp":
            os.chown(place, -1, action.new)
        else:
            Path(place).chmod(action.new)


def _make(root: Path, action: Action) -> None:
    """Make one folder, reached without links where it is in the cache; one that somebody else made keeps its owner."""
    inside = action.path != root and root in action.path.parents
    with _opened(root if inside else action.path.parent, action.path.parent) as parent:
        owner = -1
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.mkdir(action.path.name, dir_fd=parent)
            # A folder that root makes in somebody's home belongs to that person.
            owner = os.fstat(parent).st_uid if os.geteuid() == 0 else -1
        handle = os.open(action.path.name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
    try:
        place = f"/proc/self/fd/{handle}"
        os.chown(place, owner, -1 if action.new is None else 0)
        if action.new is not None:
            Path(place).chmod(action.new)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(top: Path, path: Path) -> Iterator[int]:
    """A descriptor (O_PATH) of exactly the file at `path`, reached from `top` without following a link on the way."""
    handle = os.open(top, os.O_PATH | os.O_NOFOLLOW)
    try:
        for part in path.relative_to(top).parts:
            deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = deeper
        yield handle
    finally:
        os.close(handle)


def _needs_sudo(root: Path, cause: str) -> NimctlError:
    folder = shlex.quote(str(root))
    shared = f"sudo find {folder} -path {shlex.quote(f'{root}/engine/*')} -prune -o"
    commands = (
        f"mkdir -p {folder}",
        f"{shared} \\( -type d -o -type f -links 1 \\) -exec chgrp -h 0 {{}} +",
        f"{shared} -type d -exec chmod 2770 {{}} +",
        f"{shared} -type f -links 1 -exec chmod ug-s,g+rwX,-t {{}} +",
    )
    return NimctlError(
        "cache-not-writable",
        f"the cache folder {root} cannot be prepared by uid {os.geteuid()}",
        cause=cause,
        fix=f"As an administrator: {' && '.join(commands)}",
    )

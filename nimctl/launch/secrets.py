"""Key files for one run: on a memory filesystem, readable by the run's user alone, gone when the run stops.

A folder of keys has a run's name and lies below one folder for each user, which is locked (flock) while a run starts:
whoever sweeps away the keys of runs that are gone must not take a run for gone that is only about to come.
"""

import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch.model import LaunchPlan

_KEY_FILE = re.compile(r"[A-Z0-9_]+")
_OWNER = ".owner"


@contextmanager
def keys_for(
    plan: LaunchPlan, secrets: Mapping[str, Secret], owner: str, runs: Callable[[], Collection[str]]
) -> Iterator[Path | None]:
    """The folder with the key files of a plan while its run is started; None when it needs none.

    First the folders of `owner` (a runtime) whose run is not among `runs()` any more are swept away. When the start
    fails the new one is removed as well. Raises as `stage` does.
    """
    folder = next((Path(s.source).parent for s in plan.secrets if s.source), None)
    if folder is None:
        yield None
        return
    sweep(folder.parent, owner, runs)
    try:
        with _starting(folder.parent):
            stage(folder, {s.name: secrets[s.name] for s in plan.secrets if s.source and s.name in secrets}, owner)
            yield folder
    except BaseException:  # Ctrl-C too: no key may stay
        remove(folder)
        raise


def stage(folder: Path, secrets: Mapping[str, Secret], owner: str = "") -> None:
    """Write each secret to `folder/NAME`, mode 0440, group 0 where this user may give it away.

    The folder and its parent are 0700 and ours, so the group bit only matters inside a container, where the file
    alone is mounted. Raises `config-invalid` when another user owns the folder, `disk-full` without room.
    """
    try:
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _must_be_ours(path)
        _write(folder / _OWNER, owner)
        for name, secret in secrets.items():
            target = folder / name
            _write(target, secret.reveal())
            with suppress(PermissionError):  # not root: inside the container we are the owner, and that is enough
                os.chown(target, -1, 0)
            target.chmod(0o440)
    except OSError as error:
        remove(folder)
        raise _cannot_write(folder.parent, error) from error


def _write(target: Path, text: str) -> None:
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _cannot_write(parent: Path, error: OSError) -> NimctlError:
    full = error.errno in (28, 122)  # ENOSPC, EDQUOT
    return NimctlError(
        "disk-full" if full else "config-invalid",
        f"the key cannot be written below {parent}",
        cause=str(error),
        fix=f"Free memory in {parent.parent}."
        if full
        else f"Make {parent} a folder that is yours alone (mode 0700), or remove it: `ls -ld {parent}`.",
    )


def _must_be_ours(path: Path) -> None:
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} is a link, or others own it or may write to it")


def remove(folder: Path) -> None:
    """Remove a run's key files and its folder; whatever else is there, or is not ours, is left alone."""
    with suppress(OSError):
        _must_be_ours(folder)
        for path in folder.iterdir():
            if _KEY_FILE.fullmatch(path.name) or path.name == _OWNER:
                path.unlink()
        folder.rmdir()
        with _locked(folder.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):  # nobody is about to write into it
            folder.parent.rmdir()  # only succeeds after the last run


def sweep(parent: Path, owner: str, runs: Callable[[], Collection[str]]) -> None:
    """Remove the key folders of `owner` whose run is gone: removed by hand, or never made by a start that was killed.

    Folders of other runtimes and other daemons are left alone, and so is everything while some run starts.
    """
    with suppress(OSError), _locked(parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
        _must_be_ours(parent)
        if mine := [path for path in parent.iterdir() if _owner_of(path) == owner]:
            alive = runs()  # asked under the lock: what is listed now cannot be older than a folder
            for path in mine:
                if path.name not in alive:
                    remove(path)


def _owner_of(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


@contextmanager
def _starting(parent: Path) -> Iterator[None]:
    """Keep sweepers out; make the folder, which another run's end may remove before it is locked."""
    with ExitStack() as held:
        for attempt in range(100):
            try:
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(_locked(parent, fcntl.LOCK_SH))  # waits for a sweeper, who asks docker once
                break
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or attempt == 99:
                    raise _cannot_write(parent, error) from error
        yield


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a lock on a folder. Raises FileNotFoundError when it is, or just was, removed; BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(descriptor)

"""Key files for one run: on a memory filesystem, readable by the run's user alone, gone when the run stops."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

_KEY_FILE = re.compile(r"[A-Z0-9_]+")


def staging_dir(environment: Mapping[str, str], uid: int) -> Path:
    """The folder for key files: below `$XDG_RUNTIME_DIR`, which is private and in memory, else on `/dev/shm`."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and Path(runtime).is_dir() and ":" not in runtime:
        return Path(runtime) / "nimctl"
    return Path("/dev/shm") / f"nimctl-{uid}"  # noqa: S108 (checked to be ours before anything is written)


def stage(folder: Path, secrets: Mapping[str, Secret]) -> None:
    """Write each secret to `folder/NAME`, mode 0440, group 0 where this user may give it away.

    The folder and its parent are 0700 and ours, so the group bit only matters inside a container, where the file
    alone is mounted. Raises `config-invalid` when another user owns the folder, `disk-full` without room.
    """
    try:
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _must_be_ours(path)
        for name, secret in secrets.items():
            target = folder / name
            target.unlink(missing_ok=True)
            descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secret.reveal())
            with suppress(PermissionError):  # not root: inside the container we are the owner, and that is enough
                os.chown(target, -1, 0)
            target.chmod(0o440)
    except OSError as error:
        remove(folder)
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        raise NimctlError(
            "disk-full" if full else "config-invalid",
            f"the key cannot be written below {folder}",
            cause=str(error),
            fix="Free memory in /dev/shm." if full else "Set XDG_RUNTIME_DIR to a private folder of your own.",
        ) from error


def _must_be_ours(path: Path) -> None:
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} is a link, or others own it or may write to it")


def remove(folder: Path) -> None:
    """Remove a run's key files and its folder; whatever else is there, or is not ours, is left alone."""
    with suppress(OSError):
        _must_be_ours(folder)
        for path in folder.iterdir():
            if _KEY_FILE.fullmatch(path.name):
                path.unlink()
        folder.rmdir()
        folder.parent.rmdir()  # only succeeds after the last run

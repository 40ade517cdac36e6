"""Files that are kept before they are changed, and put back exactly as they were."""

import contextlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What `nvidia-ctk runtime configure` is asked to set; everything else of the file must be as before.
_OURS = ("runtimes.nvidia", "features.cdi")


@dataclass(frozen=True)
class Kept:
    """A file as it was: `content` is None where it did not exist, and then there is no `copy`."""

    path: Path
    content: bytes | None = None
    copy: Path | None = None
    mode: int = 0o644
    uid: int = -1
    gid: int = -1

    @property
    def changed(self) -> bool:
        """Whether the file is another one now. Raises OSError where it cannot be read."""
        return _read(self.path) != self.content


def keep(path: Path, stamp: str) -> Kept:
    """Copy the file beside itself as `<name>.nimctl-<stamp>.bak`, with its mode and owner, safe against a power cut.

    What a link points to is kept, because that is what will be changed. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    content = _read(path)
    if content is None:
        return Kept(path)
    found = path.stat()
    copy = path.with_name(f"{path.name}.nimctl-{stamp}.bak")
    kept = Kept(path, content, copy, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    _write(copy, kept)
    return kept


def put_back(kept: Kept) -> None:
    """Make the file what it was, or take away one that did not exist. The copy stays. Raises OSError."""
    if kept.content is None:
        kept.path.unlink(missing_ok=True)
        _sync(kept.path.parent)
        return
    new = kept.path.with_name(f".{kept.path.name}.nimctl-{os.getpid()}")
    try:
        _write(new, kept)
        new.rename(kept.path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync(kept.path.parent)


def forget(kept: Kept) -> None:
    """Remove a copy that nobody needs, because the file was not changed."""
    if kept.copy is not None:
        with contextlib.suppress(OSError):
            kept.copy.unlink()


def lost(kept: Kept) -> str:
    """Which setting of a JSON file is gone or changed though nobody was to touch it; empty when none is.

    Some versions of nvidia-ctk write a whole section where one key was meant, and of `features` the others matter:
    without `containerd-snapshotter` Docker no longer finds its images.
    https://github.com/NVIDIA/nvidia-container-toolkit/pull/339
    """
    if kept.content is None or not kept.content.strip():
        return ""
    try:
        before, after = json.loads(kept.content), json.loads(_read(kept.path) or b"")
    except ValueError:
        return "the whole file, which is no JSON any more"
    return _lost(before, after, "")


def _lost(before: Any, after: Any, name: str) -> str:
    if name in _OURS:
        return ""
    if not isinstance(before, dict):
        return "" if before == after else name
    if not isinstance(after, dict):
        return name or "everything"
    for key, value in before.items():
        full = f"{name}.{key}".lstrip(".")
        if key not in after and full not in _OURS:
            return full
        if gone := _lost(value, after.get(key), full):
            return gone
    return ""


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, kept: Kept) -> None:
    """Write a new file: closed to everybody until it has its owner, on the disk before its name counts."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(kept.content or b"")
        file.flush()
        os.fchown(handle, kept.uid, kept.gid)
        os.fchmod(handle, kept.mode)
        os.fsync(handle)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A checkpoint laid out in a folder of its own: as links into the cache, or as real files that need no cache.

The folder is filled in place, as it may be a mount that cannot be renamed: every file gets its name when it is whole,
and the configuration, without which no engine takes a folder for a model, comes last. A second run goes on where the
first one ended. `nimctl.manifest.json` says what belongs there, so that a web server that shows the folder is a mirror
with digests, and an older revision can be told from somebody else's files. Until the files are there it lies in our own
folder: it then says whose those are that a first run left.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File, Manifest, from_json
from nimctl.core.fetch.protocol import OnProgress
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.sources.checksums import MANIFEST
from nimctl.core.fetch.transfer.meter import Meter

Kind = Literal["links", "files"]
_LAST = "config.json"
_PARTIAL = ".nimctl-partial"
_PLANNED = "manifest"  # in there: what is being laid out
# What people edit is copied, so that a change does not reach the cache; weights of this size are not edited.
_LINKED_FROM = 64 * 2**20
_BLOCK = 8 * 2**20
_CLONE = 0x40049409  # FICLONE, https://man7.org/linux/man-pages/man2/ioctl_ficlonerange.2.html
# What a filesystem itself puts into its root.
_NOT_OURS = {"lost+found", ".snapshot"}
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Laid:
    """How many files came by each way; `kept` were there already."""

    kept: int = 0
    linked: int = 0
    cloned: int = 0
    copied: int = 0


def lay_out(manifest: Manifest, source: Path, target: Path, kind: Kind, *, on_progress: OnProgress, stop: Stop) -> Laid:
    """Let the folder `target` hold the files of `manifest`, which lie in `source`.

    `links` lead to where the files really are. `files` are clones where the filesystem shares blocks, hard links of
    weights on the same one, else copies, which are hashed on their way. Raises `usage` for a folder that holds other
    things, `name-in-use` while another process fills it, `disk-full`, `cache-not-writable`, `weights-corrupt`, and
    `interrupted` once `stop` is set.
    """
    manifest = replace(manifest, files=tuple(file for file in manifest.files if file.path != MANIFEST))  # we write ours
    if _is_within(target, source) or _is_within(source, target):
        raise _foreign(target, f"it and {source}, where the files come from, lie in each other")
    meter = Meter(manifest.files, on_progress)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _require_ours(target)
        private = target / _PARTIAL
        private.mkdir(exist_ok=True)
        with _locked(private):
            ours = _take_over(target, manifest)
            laid = _Layer(manifest, source, target, kind, ours, meter, stop).lay()
            shutil.rmtree(private)
    except OSError as error:
        raise _unwritable(target, error) from error
    meter.finished()
    return laid


class _Layer:
    """One folder that is being filled. What is in it under the name of one of `ours` is that file, if it is whole."""

    def __init__(  # noqa: PLR0917
        self,
        manifest: Manifest,
        source: Path,
        target: Path,
        kind: Kind,
        ours: frozenset[File],
        meter: Meter,
        stop: Stop,
    ) -> None:
        self._manifest, self._source, self._target = manifest, source, target
        self._kind, self._ours, self._meter, self._stop = kind, ours, meter, stop
        self._private = target / _PARTIAL
        self._counts = dict.fromkeys(("kept", "linked", "cloned", "copied"), 0)

    def lay(self) -> Laid:
        todo: list[File] = []
        for file in sorted(self._manifest.files, key=lambda file: (file.path == _LAST, file.size, file.path)):
            if self._is_there(file):
                self._counts["kept"] += 1
                self._meter.set(file, "done")
            else:
                todo.append(file)
        self._require_room(todo)
        for file in todo:
            if file.path != _LAST:
                self._place(file)
        (self._private / _PLANNED).replace(self._target / MANIFEST)
        for file in todo:
            if file.path == _LAST:
                self._place(file)
        return Laid(**self._counts)

    def _require_room(self, todo: list[File]) -> None:
        """Refuse, before the first byte, what will have to be copied and will not fit."""
        here = self._target.stat().st_dev
        if self._kind == "links" or (todo and self._origin(todo[-1]).stat().st_dev == here):
            return
        needed, free = sum(file.size for file in todo), free_bytes(self._target)
        if needed > free:
            raise NimctlError(
                "disk-full",
                f"{self._target} has no room for the model",
                cause=f"{needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free",
                fix="Free space there, or name a folder on the filesystem of the cache, where weights are linked.",
            )

    def _is_there(self, file: File) -> bool:
        place, origin = self._target / file.path, self._origin(file)
        try:
            if self._kind == "links":
                return place.is_symlink() and place.resolve() == origin
            return file in self._ours and not place.is_symlink() and place.stat().st_size == file.size
        except OSError:
            return False

    def _origin(self, file: File) -> Path:
        return (self._source / file.path).resolve()

    def _place(self, file: File) -> None:
        if self._stop.is_set:
            raise _stopped()
        place, fresh = self._target / file.path, self._private / "file"
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        way = "linked" if self._kind == "links" else self._bring(file, fresh)
        if self._kind == "links":
            fresh.symlink_to(self._origin(file))
        fresh.replace(place)
        self._counts[way] += 1
        self._meter.moving("copying", file.size, file)
        self._meter.set(file, "done")

    def _bring(self, file: File, fresh: Path) -> str:
        origin = self._origin(file)
        if clone(origin, fresh):
            return "cloned"
        if file.size >= _LINKED_FROM:
            with contextlib.suppress(OSError):  # another filesystem, or a file of another user
                fresh.hardlink_to(origin)
                return "linked"
        self._copy(file, origin, fresh)
        return "copied"

    def _copy(self, file: File, origin: Path, fresh: Path) -> None:
        hasher = file.expected.hasher(file.size) if file.expected else None
        done = 0
        with origin.open("rb") as content, fresh.open("wb") as out:
            while block := content.read(_BLOCK):
                if self._stop.is_set:
                    raise _stopped()
                if hasher:
                    hasher.update(memoryview(block))
                out.write(block)
                done += len(block)
                self._meter.moving("copying", done, file)
            out.flush()
            os.fsync(out.fileno())
        if done != file.size or (hasher and file.expected and hasher.hexdigest() != file.expected.hex):
            raise NimctlError(
                "weights-corrupt",
                f"{origin} is damaged",
                cause=f"{file.path} does not have {file.size} bytes with the digest {file.digest}",
                fix="Repair the cache where there is a network (`nimctl cache verify --repair`), then run it again.",
            )


def _require_ours(target: Path) -> None:
    names = {entry.name for entry in target.iterdir()} - _NOT_OURS
    if names and not names & {_PARTIAL, MANIFEST}:
        raise _foreign(target, f"it holds {', '.join(sorted(names)[:3])}, which is not from here")


def _take_over(target: Path, manifest: Manifest) -> frozenset[File]:
    """Take away what an earlier revision left, its configuration first: from then on it is no model.

    Returns the files that an earlier run may have laid out and that belong here still.
    """
    before, wanted = _laid_before(target), frozenset(manifest.files)
    if before == wanted:
        _plan(target, manifest)
        return wanted
    (target / _LAST).unlink(missing_ok=True)
    ours = frozenset(file for file in before & wanted if file.digest is not None)
    for file in before - ours:
        (target / file.path).unlink(missing_ok=True)
    _plan(target, manifest)
    (target / MANIFEST).unlink(missing_ok=True)
    return ours


def _laid_before(target: Path) -> frozenset[File]:
    """What an earlier run began to lay out, else what one did; empty where nobody knows: then nothing is trusted."""
    for path in (target / _PARTIAL / _PLANNED, target / MANIFEST):
        with contextlib.suppress(OSError, ValueError):
            return frozenset(from_json(json.loads(path.read_bytes())).files)
    return frozenset()


def _plan(target: Path, manifest: Manifest) -> None:
    """Say what is laid out from now on."""
    fresh = target / _PARTIAL / "fresh"
    with fresh.open("w", encoding="utf-8") as out:
        out.write(json.dumps(manifest.to_json(), indent=1) + "\n")
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(target / _PARTIAL / _PLANNED)
    (target / MANIFEST).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(private: Path) -> Iterator[None]:
    handle = os.open(private / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NimctlError(
                "name-in-use",
                f"{private.parent} is being filled by another process",
                cause="its lock is held",
                fix="Wait until that one has ended, or name another folder.",
            ) from error
        except OSError as error:  # a mount that knows no locks
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(handle)


def clone(origin: Path, fresh: Path) -> bool:
    """Whether the filesystem made `fresh` share the blocks of `origin`; nothing is left where it did not."""
    with contextlib.suppress(OSError):
        with origin.open("rb") as content, fresh.open("wb") as out:
            fcntl.ioctl(out.fileno(), _CLONE, content.fileno())
        return True
    fresh.unlink(missing_ok=True)
    return False


def _is_within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def _foreign(target: Path, cause: str) -> NimctlError:
    return NimctlError(
        "usage", f"no model can be laid out in {target}", cause=cause, fix="Name a folder that is empty or not there."
    )


def _stopped() -> NimctlError:
    return NimctlError(
        "interrupted",
        "the copy was stopped",
        cause="somebody asked for it",
        fix="Run it again: it goes on where it stopped.",
    )


def _unwritable(target: Path, error: OSError) -> NimctlError:
    if error.errno in _FULL:
        return NimctlError(
            "disk-full",
            f"{target} has no room for the model",
            cause=f"a write was refused ({error.strerror})",
            fix="Free space there, then run it again: it goes on where it stopped.",
        )
    return NimctlError(
        "cache-not-writable",
        f"the model cannot be laid out in {target}",
        cause=f"{error.strerror} ({error.filename or target}); this process runs as {os.geteuid()}:{os.getegid()}",
        fix="Mount a folder there that this user may write (group 0, mode g+rwX), or name another.",
    )

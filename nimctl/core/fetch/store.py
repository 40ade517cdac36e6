"""Bringing a checkpoint into the cache: what is there is used, what is missing is fetched, and the marker comes last.

A snapshot counts only with its marker, every step before the marker can be repeated, and each replaces a name
atomically: so a crash anywhere, and any number of writers at once, end in the right state. Where things are:
`nimctl.core.cache.RepoPaths`; who writes when: `writers`.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.cache import CachePaths, RepoPaths, make_shared_folder, storage_error
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import install, snapshots, verify
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import Generator, OnProgress, Remote, Source
from nimctl.core.fetch.retry import DEFAULT, Patience, Stop
from nimctl.core.fetch.room import require_room
from nimctl.core.fetch.transfer.meter import Meter
from nimctl.core.fetch.transfer.partial import Partial
from nimctl.core.fetch.transfer.run import Transfer
from nimctl.core.fetch.writers import Writer, turn, writer

_OUT_OF_REACH = ("weights-offline", "weights-source-unreachable")
_MOST_LOSSES = 3  # times that this process may be taken for dead before it gives up


@dataclass(frozen=True)
class Order:
    """One thing to bring into the cache, and how: the files of `manifest`, some or all of those of `whole`."""

    source: Source
    manifest: Manifest
    whole: Manifest
    paths: CachePaths
    meter: Meter
    patience: Patience
    stop: Stop

    @property
    def repo(self) -> RepoPaths:
        """Where it goes."""
        return self.paths.repo(self.source.repo, self.source.part)

    @property
    def snapshot(self) -> Path:
        """The folder that it becomes."""
        return self.repo.snapshot(self.manifest.revision)


def ensure(
    source: Source,
    manifest: Manifest,
    paths: CachePaths,
    on_progress: OnProgress,
    *,
    patience: Patience = DEFAULT,
    stop: Stop | None = None,
    only: Callable[[File], bool] | None = None,
) -> Path:
    """The snapshot of `manifest`, complete and verified, fetched from `source` as far as it is not there yet.

    With `only`, just those files are brought, and the snapshot is not marked complete. Raises `disk-full` before the
    first byte where the room is known to be too small for all files of `manifest`, `interrupted` when stopped, else
    as `fetch` does.
    """
    if not manifest.files:
        raise NimctlError(
            "weights-missing",
            f"{manifest.source} holds no files",
            cause=f"its manifest at revision {manifest.revision} is empty",
            fix="Check the name and the revision of the checkpoint.",
        )
    wanted = Manifest(manifest.source, manifest.revision, tuple(filter(only, manifest.files)))
    meter = Meter(wanted.files, on_progress)
    order = Order(source, wanted, manifest, paths, meter, patience, stop or Stop())
    if not is_complete(order.repo, wanted):
        try:
            if _writable(order.repo.folder):
                _fetch(order, mark=only is None)
            else:
                _use_read_only(order)
        except OSError as error:
            raise storage_error(error, paths.root) from error
    _point_refs(order)
    meter.finished()
    return order.snapshot


def is_complete(repo: RepoPaths, manifest: Manifest) -> bool:
    """Whether every file of `manifest` was verified in its revision, and still has its size. Reads no weights."""
    recorded = snapshots.complete(repo, manifest.revision)
    return recorded is not None and {f.path for f in manifest.files} <= {f.path for f in recorded.files}


def _point_refs(order: Order) -> None:
    """Let the names of the revision lead to it, where it was complete already under another name."""
    refs = order.source.refs if isinstance(order.source, Remote) else ()
    if any(snapshots.revision_at(order.repo, ref) != order.manifest.revision for ref in refs) and is_complete(
        order.repo, order.manifest
    ):
        with contextlib.suppress(OSError):  # a read-only cache is used as it is
            install.point(order.paths, order.repo, order.manifest.revision, refs)


def _fetch(order: Order, *, mark: bool) -> None:
    repo, root = order.repo, order.paths.root
    for _ in range(_MOST_LOSSES):
        with turn(
            repo, root, order.stop, settled=lambda: is_complete(repo, order.manifest), on_wait=order.meter.waiting
        ):
            if is_complete(repo, order.manifest):
                return
            with writer(repo, root, order.stop, order.meter.waiting) as me:
                try:
                    finished = _bring(order, me, mark=mark)
                except OSError:
                    if not me.is_lost:
                        raise
                    finished = False
        if finished:
            return
        _require_wanted(order.stop)
    raise NimctlError(
        "cache-unreachable",
        f"{repo.folder} was taken over by other processes again and again",
        cause="this process stood still for so long that others took it for dead",
        fix="Check the load of this machine and the mount, then run it again: what was fetched is kept.",
    )


def _bring(order: Order, me: Writer, *, mark: bool) -> bool:
    """Fetch what is missing, and install everything; False where somebody else took this writer's place."""
    repo, source = order.repo, order.source
    for folder in (repo.blobs, repo.markers):
        make_shared_folder(folder, order.paths.root)
    install.require_one_disk(repo)
    present, missing, damaged = _sift(order)
    for key in present:  # of one that died after the blob got its name, or whose file another one delivered
        for left in me.folder.glob(f"{key}.*"):
            left.unlink()
    partials = [Partial(file, me.folder) for file in missing]
    for partial in partials:
        partial.load()
    blobs = order.repo.blobs
    later = [f for f in order.whole.files if f not in order.manifest.files and not _has_size(blobs / f.key, f.size)]
    require_room(repo, me.folder, [*missing, *later], order.manifest.source)
    hexes: dict[str, str] = dict(present)
    if isinstance(source, Generator):
        if missing:
            hexes |= _generate(source, order, me)
    elif isinstance(source, Remote):

        def deliver(partial: Partial, digest: str) -> None:
            install.blob(repo, partial.data, digest, partial.file)
            partial.remove()
            hexes[partial.file.key] = digest
            order.meter.set(partial.file, "done")

        transfer = Transfer(
            partials,
            source,
            on_sealed=deliver,
            meter=order.meter,
            patience=order.patience,
            stop=order.stop,
            still_ours=lambda: not me.is_lost,
        )
        try:
            transfer.run()
        except NimctlError as error:
            if damaged and error.id in _OUT_OF_REACH:
                raise _damaged(order, damaged, error) from error
            raise
    _require_wanted(order.stop)
    if me.is_lost:
        return False
    refs = source.refs if isinstance(source, Remote) else ("main",)
    install.snapshot(order.paths, repo, order.manifest, hexes, private=me.folder, refs=refs if mark else None)
    return True


def _sift(order: Order) -> tuple[dict[str, str], list[File], list[File]]:
    """Names of blobs by key of what is there (hashed where nobody did yet), files to fetch, those with wrong bytes."""
    vouched = snapshots.verified_blobs(order.repo)
    undigested = snapshots.names_of_undigested(order.repo)
    present: dict[str, str] = {}
    missing: dict[str, File] = {}
    doubtful: list[tuple[Path, File]] = []
    for file in order.manifest.files:
        name = file.key if file.digest else undigested.get(file.key, file.key)
        blob = order.repo.blobs / name
        if not _has_size(blob, file.size):
            missing[file.key] = file
        elif vouched.get(name) == file.size:
            present[file.key] = name
            order.meter.set(file, "done")
        else:
            doubtful.append((blob, file))
    damaged = _hashed(order, doubtful)
    missing |= {file.key: file for file in damaged}
    for _, file in doubtful:
        if file.key not in missing:
            install.vouch(order.repo, file.key, file)
            present[file.key] = file.key
    return present, list(missing.values()), damaged


def _hashed(order: Order, items: Sequence[tuple[Path, File]]) -> list[File]:
    """Those of `items` whose bytes are not what their digest says."""
    if not items:
        return []
    wrong = verify.wrong_files(items, on_bytes=order.meter.verifying, stop=order.stop)
    _require_wanted(order.stop)
    for file in wrong:
        order.meter.set(file, "waiting", 0)
    return wrong


def _generate(source: Generator, order: Order, me: Writer) -> dict[str, str]:
    made = me.folder / "made"
    make_shared_folder(made)
    items = [(made / file.path, file) for file in {file.key: file for file in order.manifest.files}.values()]
    try:
        source.materialise(order.manifest, made, lambda _: None)
        for path, file in items:
            if not _has_size(path, file.size):
                raise _not_as_promised(order.manifest, file)
        for file in _hashed(order, items):
            raise _not_as_promised(order.manifest, file)
        for path, file in items:
            install.seal(path)
            install.blob(order.repo, path, file.key, file)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return {file.key: file.key for _, file in items}


def _use_read_only(order: Order) -> None:
    """Accept a cache that cannot be written if it lacks nothing; its bytes are hashed, as nothing vouches for them."""
    files = order.manifest.files
    lacking = [file.path for file in files if not _has_size(order.snapshot / file.path, file.size)]
    known = [file for file in files if file.digest]
    if not lacking:
        lacking = [file.path for file in _hashed(order, [(order.snapshot / file.path, file) for file in known])]
    if lacking:
        place, root = _nearest(order.repo.folder), order.paths.root
        first = f"the first file that is missing or damaged in {order.snapshot} is {lacking[0]}"
        if not os.statvfs(place).f_flag & os.ST_RDONLY:
            denied = storage_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place)), root)
            raise NimctlError(denied.id, denied.message, cause=f"{denied.cause}; {first}", fix=denied.fix,
                              evidence=lacking[:10])  # fmt: skip
        raise NimctlError(
            "cache-not-writable",
            f"{len(lacking)} of {len(files)} files have to be fetched, and the cache {root} is read-only",
            cause=first,
            fix="Mount the cache writable, or complete it where it is: `nimctl pull --weights`, "
            "`nimctl cache verify --repair`.",
            evidence=lacking[:10],
        )


def _damaged(order: Order, files: Sequence[File], error: NimctlError) -> NimctlError:
    return NimctlError(
        "weights-corrupt",
        f"{len(files)} of the files of {order.manifest.source} in the cache are damaged, first {files[0].path}",
        cause=f"its bytes do not have the digest {files[0].digest}, and it cannot be fetched anew: {error.message}",
        fix="Where there is a network: `nimctl cache verify --repair`. Or copy the file from a cache that is whole.",
        evidence=[file.path for file in files[:10]],
    )


def _require_wanted(stop: Stop) -> None:
    if stop.is_set:
        raise NimctlError(
            "interrupted",
            "the download was stopped",
            cause="somebody asked for it",
            fix="Run it again: it goes on where it stopped.",
        )


def _not_as_promised(manifest: Manifest, file: File) -> NimctlError:
    return NimctlError(
        "weights-corrupt",
        f"{file.path} of {manifest.source} is not what its manifest says",
        cause=f"it does not have {file.size} bytes with the digest {file.digest}",
        fix="Run it again; if it happens again, the disk or the memory of this machine is damaged.",
    )


def _nearest(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if p.exists())


def _writable(folder: Path) -> bool:
    return os.access(_nearest(folder), os.W_OK | os.X_OK, effective_ids=True)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False

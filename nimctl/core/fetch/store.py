"""Installing a checkpoint in the cache, in the layout of the Hugging Face cache.

    models--org--name/
      blobs/<sha256>                        the bytes
      snapshots/<revision>/<path>           links to ../../blobs/<sha256>
      refs/main                             the revision, so that tools find it by name
      .complete/<revision>.json             our marker, written last: the manifest that was verified
      .incoming-<random>/                   a writer's private folder

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. A snapshot counts only with its marker, every
step before the marker can be repeated, and each replaces a name atomically: so a crash anywhere, and two writers at
once, end in the right state.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from nimctl.core.cache import FILE_MODE, CachePaths, free_bytes, make_shared_folder, storage_error
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.incoming import incoming_folder
from nimctl.core.fetch.manifest import File, Manifest, from_json
from nimctl.core.fetch.protocol import OnProgress, Progress, Source

# Room for folders, links and the marker beside the files themselves.
_MARGIN_BYTES = 4 * 2**20
_MARGIN_INODES = 16
_CHUNK = 4 * 2**20


def complete_snapshot(paths: CachePaths, repo: str, manifest: Manifest) -> Path | None:
    """The snapshot folder if its marker is there and every file has its size; None otherwise. Reads no weights."""
    snapshot = paths.snapshot_dir(repo, manifest.revision)
    try:
        recorded = from_json(json.loads(_marker(paths, repo, manifest).read_bytes()))
        sizes = all((snapshot / file.path).stat().st_size == file.size for file in recorded.files)
    except (OSError, ValueError):
        return None
    return snapshot if sizes and recorded == manifest else None


def ensure(source: Source, manifest: Manifest, paths: CachePaths, on_progress: OnProgress) -> Path:
    """The complete snapshot of `manifest`, materialised by `source` if it is not there yet.

    Raises `disk-full` before the first byte where the room is known to be too small, else as `fetch` does.
    """
    if not manifest.files:
        raise NimctlError(
            "weights-missing",
            f"{manifest.source} holds no files",
            cause=f"its manifest at revision {manifest.revision} is empty",
            fix="Check the name and the revision of the checkpoint.",
        )
    present = complete_snapshot(paths, source.repo, manifest)
    if present is None:
        repo = paths.repo_dir(source.repo)
        _require_room(repo, manifest)
        try:
            make_shared_folder(repo, paths.root)
            with incoming_folder(repo) as private:
                files = private / "files"
                make_shared_folder(files)
                source.materialise(manifest, files, on_progress)
                _verify(files, manifest, on_progress)
                _install(files, manifest, paths, source.repo)
        except OSError as error:
            raise storage_error(error, paths.root) from error
        present = paths.snapshot_dir(source.repo, manifest.revision)
    on_progress(Progress(manifest.total, manifest.total))
    return present


def _marker(paths: CachePaths, repo: str, manifest: Manifest) -> Path:
    return paths.repo_dir(repo) / ".complete" / f"{manifest.revision}.json"


def _require_room(folder: Path, manifest: Manifest) -> None:
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free, needed = free_bytes(place), manifest.total + _MARGIN_BYTES
    inodes = os.statvfs(place)
    enough_inodes = not inodes.f_files or inodes.f_favail >= 2 * len(manifest.files) + _MARGIN_INODES
    if free >= needed and enough_inodes:
        return
    cause = f"{needed / 2**20:.1f} MiB are needed and {free / 2**20:.1f} MiB are free"
    raise NimctlError(
        "disk-full",
        f"{place} has no room for {manifest.source}",
        cause=cause if free < needed else f"only {inodes.f_favail} inodes are free for {len(manifest.files)} files",
        fix="Free space there, or name a folder on a larger disk with --cache.",
    )


def _verify(files: Path, manifest: Manifest, on_progress: OnProgress) -> None:
    """Check size and SHA-256 of every file, and force it to the disk."""
    done = 0
    for file in manifest.files:
        digest, size = hashlib.sha256(), 0
        try:
            with (files / file.path).open("rb") as content:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    on_progress(Progress(done + size, manifest.total, file.path))
                os.fchmod(content.fileno(), FILE_MODE)
                os.fsync(content.fileno())
        except FileNotFoundError:
            raise _wrong(manifest, file, "it was not written") from None
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            cause = f"it has {size} bytes and SHA-256 {digest.hexdigest()}, not {file.size} bytes and {file.sha256}"
            raise _wrong(manifest, file, cause)
        done += size


def _wrong(manifest: Manifest, file: File, cause: str) -> NimctlError:
    return NimctlError(
        "weights-incomplete",
        f"{file.path} of {manifest.source} is not what its manifest says",
        cause=cause,
        fix="Run it again; if it happens again, the source or the disk is damaged.",
    )


def _install(files: Path, manifest: Manifest, paths: CachePaths, name: str) -> None:
    repo, snapshot = paths.repo_dir(name), paths.snapshot_dir(name, manifest.revision)
    marker = _marker(paths, name, manifest)
    for folder in (repo / "blobs", snapshot, repo / "refs", marker.parent):
        make_shared_folder(folder, paths.root)
    for file in manifest.files:
        (files / file.path).replace(repo / "blobs" / str(file.sha256))
    _sync(repo / "blobs")
    for file in manifest.files:
        _link(snapshot / file.path, repo / "blobs" / str(file.sha256), files)
    for folder in sorted({(snapshot / file.path).parent for file in manifest.files} | {snapshot.parent, repo}):
        _sync(folder)
    _write(repo / "refs" / "main", manifest.revision, files)
    _write(marker, json.dumps(manifest.to_json(), indent=1) + "\n", files)


def _link(link: Path, blob: Path, private: Path) -> None:
    target = os.path.relpath(blob, link.parent)
    with contextlib.suppress(OSError):
        if link.readlink() == Path(target):
            return
    make_shared_folder(link.parent, root=blob.parent.parent)
    fresh = private / ".link"
    fresh.symlink_to(target)
    fresh.replace(link)


def _write(path: Path, text: str, private: Path) -> None:
    fresh = private / ".text"
    with fresh.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Force the names in `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The last steps: bytes get their blob name, links lead to them, and the marker says that all was verified."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nimctl.core.cache import CachePaths, RepoPaths, make_shared_folder, open_shared
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots
from nimctl.core.fetch.digests import of_blob_name
from nimctl.core.fetch.manifest import File, Manifest


def seal(path: Path) -> None:
    """Make the file readable for the group and force it to the disk."""
    handle = open_shared(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def blob(repo: RepoPaths, data: Path, name: str, file: File) -> None:
    """Give the verified, synced file `data` its name among the blobs, and vouch for it."""
    data.replace(repo.blobs / name)
    sync_folder(repo.blobs)
    vouch(repo, name, file)


def vouch(repo: RepoPaths, name: str, file: File) -> None:
    """Note that the blob of `file` was verified, so that after a crash it is not hashed, or fetched, again."""
    make_shared_folder(repo.markers)
    handle = open_shared(repo.markers / snapshots.SEALED, os.O_WRONLY | os.O_APPEND)
    try:
        key = f" {file.key}" if file.version and not file.digest else ""
        os.write(handle, f"{name} {file.size}{key}\n".encode("ascii"))
    finally:
        os.close(handle)


def disown(repo: RepoPaths, names: Collection[str], private: Path) -> None:
    """Take back that these blobs were verified. Markers are not looked at."""
    sealed = repo.markers / snapshots.SEALED
    try:
        lines = sealed.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.partition(" ")[0] not in names]
    if kept != lines:
        _write(sealed, "".join(f"{line}\n" for line in kept), private)


def snapshot(
    paths: CachePaths,
    repo: RepoPaths,
    manifest: Manifest,
    names: Mapping[str, str],
    *,
    private: Path,
    refs: tuple[str, ...] | None,
) -> None:
    """Link every file of `manifest` to its blob (`names` by key); with `refs`, mark it complete under these names."""
    folder = repo.snapshot(manifest.revision)
    for each in (folder, repo.refs, repo.markers):
        make_shared_folder(each, paths.root)
    for file in manifest.files:
        _link(folder / file.path, repo.blobs / names[file.key], private, paths.root)
    above = {parent for file in manifest.files for parent in (folder / file.path).parents}
    for each in sorted({p for p in above if p.is_relative_to(folder)} | {folder, folder.parent, repo.folder}):
        sync_folder(each)
    if refs is None:
        return
    _point(paths, repo, manifest.revision, refs, private)
    before = snapshots.complete(repo, manifest.revision)  # more files of the same revision, fetched earlier
    files = {file.path: file for file in before.files} if before else {}
    files |= {file.path: _with_digest(file, names[file.key]) for file in manifest.files}
    whole = replace(manifest, files=tuple(files[path] for path in sorted(files)))
    _write(repo.marker(manifest.revision), json.dumps(whole.to_json(), indent=1) + "\n", private)


def point(paths: CachePaths, repo: RepoPaths, revision: str, refs: Sequence[str]) -> None:
    """Let the names `refs` lead to `revision`, which is complete."""
    private = repo.partial / f"refs-{secrets.token_hex(8)}"
    make_shared_folder(private, paths.root)
    try:
        _point(paths, repo, revision, refs, private)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _point(paths: CachePaths, repo: RepoPaths, revision: str, refs: Sequence[str], private: Path) -> None:
    for ref in refs:
        make_shared_folder(repo.ref(ref).parent, paths.root)
        _write(repo.ref(ref), revision, private)  # without a line's end: huggingface_hub reads it as it is


def require_one_disk(repo: RepoPaths) -> None:
    """A finished file gets its name by a rename, which cannot lead to another filesystem. Raises `cache-not-writable`.

    That is so where somebody made `blobs` a link to another disk.
    """
    if repo.blobs.stat().st_dev != repo.partial.stat().st_dev:
        place = repo.blobs.resolve()
        raise NimctlError(
            "cache-not-writable",
            f"{repo.blobs} lies on another filesystem than {repo.partial}",
            cause=f"it leads to {place}, and a finished file cannot be moved there in one step",
            fix=f"Move all of {repo.folder} to that disk and leave a link in its place.",
        )


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _with_digest(file: File, name: str) -> File:
    if file.digest:
        return file
    computed = of_blob_name(name)
    return replace(file, digest=str(computed)) if computed else file


def _link(link: Path, target: Path, private: Path, root: Path) -> None:
    # from where the link really is: its user may have moved one of the folders to another disk and left a link
    relative = os.path.relpath(f"{os.path.realpath(target.parent)}/{target.name}", os.path.realpath(link.parent))
    with contextlib.suppress(OSError):
        if link.readlink() == Path(relative):
            return
    make_shared_folder(link.parent, root)
    fresh = private / ".link"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(relative)
    fresh.replace(link)


def _write(path: Path, text: str, private: Path) -> None:
    fresh = private / ".text"
    fresh.unlink(missing_ok=True)
    handle = open_shared(fresh, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.replace(path)
    sync_folder(path.parent)

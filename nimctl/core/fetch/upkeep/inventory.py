"""What the cache holds: repositories, revisions, downloads that were begun, compile caches. Reads, changes nothing.

Names and sizes only, never weights. What is not laid out as a cache is not looked at.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nimctl.core.cache import CachePaths, Part, RepoPaths
from nimctl.core.cache.held import LOCK
from nimctl.core.fetch import snapshots, writers
from nimctl.core.fetch.manifest import Manifest
from nimctl.core.fetch.sources.integrity import promised_shards
from nimctl.core.plain import to_plain

State = Literal["verified", "unverified", "incomplete", "damaged"]
WriterState = Literal["alive", "dead", "unsure"]
_PREFIX = "models--"
_BLOCK = 512  # bytes: the unit of st_blocks
_HF_PARTIAL = ".incomplete"  # what huggingface_hub calls a blob that it is writing
_HF_LOCKS = ".locks"


@dataclass(frozen=True)
class Blob:
    """The bytes of one file, `disk` of them on the disk; `age` in seconds since they were written."""

    name: str
    disk: int
    age: float | None


@dataclass(frozen=True)
class Revision:
    """One snapshot. Of `files` files `present` are there, with `bytes` bytes together; `total` bytes where known.

    `verified`: our marker says that every byte was hashed. `unverified`: whole, left by `hf` or a NIM. `damaged`: a
    check found wrong bytes. `source` is the address it came from; `age` in seconds since it was made.
    """

    revision: str
    refs: tuple[str, ...]
    state: State
    files: int
    present: int
    bytes: int
    total: int | None
    source: str | None
    age: float | None
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True)
class Partial:
    """A download that was begun: `bytes` of `total` in the files that it has touched, `disk` bytes on the disk."""

    name: str
    writer: WriterState
    files: int
    bytes: int
    total: int
    disk: int
    age: float | None


@dataclass(frozen=True)
class Repository:
    """One repository. `disk` counts every byte of it once, whatever links to it.

    `loose` are blobs that no snapshot links to: left by a download that was cut off, or by a revision that is gone.
    """

    part: Part
    name: str
    folder: str
    disk: int
    revisions: tuple[Revision, ...]
    partials: tuple[Partial, ...]
    loose: tuple[Blob, ...]


@dataclass(frozen=True)
class EngineCache:
    """Compile caches of one user (`uid`) for one image, GPU and driver (`key`)."""

    uid: int
    key: str
    disk: int
    age: float | None


@dataclass(frozen=True)
class Inventory:
    """All that the cache at `root` holds, in bytes on the disk; `unreadable` names folders that could not be read."""

    root: str
    disk: int
    repositories: tuple[Repository, ...]
    engine: tuple[EngineCache, ...]
    unreadable: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The inventory as a JSON-ready document; blobs are left out, as their number may be large."""
        plain: dict[str, Any] = to_plain(self)
        for repository in plain["repositories"]:
            for revision in repository["revisions"]:
                del revision["blobs"]
        return plain


def take(root: Path) -> Inventory:
    """What lies in the cache at `root` now; empty where there is no such folder. Raises OSError for a broken mount."""
    paths, now = CachePaths(root), time.time()
    unreadable: list[str] = []
    repositories: list[Repository] = []
    for part in get_args(Part):
        folder = paths.part(part)
        for name in sorted(_names(folder, unreadable)):
            if name.startswith(_PREFIX) and (folder / name).is_dir():
                found = _repository(part, folder / name, now)
                if found.revisions or found.partials or found.loose:
                    repositories.append(found)
    engine = tuple(_engine(paths.engine, now, unreadable))
    disk = sum(r.disk for r in repositories) + sum(e.disk for e in engine)
    return Inventory(str(root), disk, tuple(repositories), engine, tuple(unreadable))


def paths_of(root: Path, repository: Repository) -> RepoPaths:
    """Where the repository's things are."""
    return CachePaths(root).repo(repository.name, repository.part)


def listed_name(repo: str) -> str:
    """The name that `take` gives to a source's repository: folders do not tell -- in a name from the / of another."""
    return repo.replace("--", "/")


def _names(folder: Path, unreadable: list[str]) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        unreadable.append(str(folder))
        return []


def linked_blobs(repo: RepoPaths, revision: str) -> set[str]:
    """The names of the repository's own blobs that the snapshot `revision` links to, there or not."""
    own = f"{repo.blobs}{os.sep}"
    found: set[str] = set()
    with contextlib.suppress(OSError):  # no folder, or none that may be read
        for path in snapshots.files_of(repo.snapshot(revision)):
            if path.is_symlink() and (target := os.path.normpath(path.parent / path.readlink())).startswith(own):
                found.add(target.removeprefix(own))
    return found


def _repository(part: Part, folder: Path, now: float) -> Repository:
    repo = RepoPaths(folder)
    refs: dict[str, list[str]] = {}
    for ref in refs_of(repo):
        if revision := snapshots.revision_at(repo, ref):
            refs.setdefault(revision, []).append(ref)
    names = {*snapshots.revisions(repo), *snapshots.marked_revisions(repo)}
    revisions = tuple(_revision(repo, name, tuple(refs.get(name, ())), now) for name in sorted(names))
    linked = {blob.name for revision in revisions for blob in revision.blobs}
    loose = tuple(_loose(repo, linked, now))
    return Repository(
        part=part,
        name=listed_name(folder.name.removeprefix(_PREFIX)),
        folder=str(folder),
        disk=_disk(folder),
        revisions=revisions,
        partials=(*_partials(repo, now), *_partials_of_hf(folder, now)),
        loose=loose,
    )


def refs_of(repo: RepoPaths) -> Iterator[str]:
    """Every name in `refs`, those with slashes too."""
    for folder, _, files in os.walk(repo.refs):
        for name in files:
            yield (Path(folder) / name).relative_to(repo.refs).as_posix()


def _revision(repo: RepoPaths, name: str, refs: tuple[str, ...], now: float) -> Revision:
    snapshot = repo.snapshot(name)
    sizes: dict[str, int] = {}
    dangling: set[str] = set()
    with contextlib.suppress(OSError):  # no folder, or none that may be read
        for path in snapshots.files_of(snapshot):
            relative = path.relative_to(snapshot).as_posix()
            try:
                sizes[relative] = path.stat().st_size
            except OSError:
                dangling.add(relative)
    marker = snapshots.marked(repo, name)
    doubted = None if marker else snapshots.doubted(repo, name)
    known = marker or doubted
    files, total, whole = _expected(snapshot, known, sizes, dangling)
    state: State = "damaged" if doubted else "verified" if marker else "unverified"
    present = sum(1 for path in files if path in sizes)
    return Revision(
        revision=name,
        refs=refs,
        state=state if whole or doubted else "incomplete",
        files=len(files),
        present=present,
        bytes=sum(sizes.values()),
        total=total,
        source=known.source if known else None,
        age=_age(snapshot, now),
        blobs=tuple(_blob(repo.blobs / blob, now) for blob in sorted(linked_blobs(repo, name))),
    )


def _expected(
    snapshot: Path, manifest: Manifest | None, sizes: dict[str, int], dangling: set[str]
) -> tuple[set[str], int | None, bool]:
    """The files that belong to a snapshot, their bytes where known, and whether all are there."""
    if manifest is not None:
        wanted = {file.path: file.size for file in manifest.files}
        return set(wanted), manifest.total, all(sizes.get(path) == size for path, size in wanted.items())
    shards = promised_shards(snapshot, [path for path in sizes if "/" not in path])
    files = {*sizes, *dangling, *shards}
    whole = not dangling and shards <= set(sizes) and any(path.endswith(".safetensors") for path in sizes)
    return files, None, whole and "config.json" in sizes


def _partials(repo: RepoPaths, now: float) -> Iterator[Partial]:
    for folder, condition in writers.conditions(repo.partial).items():
        heads = [head for journal in sorted(folder.rglob("*.journal")) if (head := _journal(journal))]
        state: WriterState = "alive" if condition == "alive" else "dead" if condition == "dead" else "unsure"
        total = sum(size for size, _ in heads)
        yield Partial(
            folder.name, state, len(heads), sum(done for _, done in heads), total, _disk(folder), _age(folder, now)
        )


def _journal(path: Path) -> tuple[int, int] | None:
    """Size of the file that a journal describes, and the bytes of it that are there."""
    try:
        head, *lines = path.read_bytes().split(b"\n")
        described = json.loads(head)
        size, block = int(described["size"]), int(described["block"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size, min(size, block * len({line for line in lines if line.startswith(b"b ")}))


def _partials_of_hf(folder: Path, now: float) -> Iterator[Partial]:
    """What `hf download` has begun; its writer lives while it holds one of its locks.

    https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/file_download.py
    """
    locks = folder.parent / _HF_LOCKS / folder.name
    for path in sorted((folder / "blobs").glob(f"*{_HF_PARTIAL}")):
        lock = locks / f"{path.name.split('.')[0]}.lock"
        held = writers.is_locked(lock)
        size = _size(path)
        state: WriterState = "unsure" if held is None else "alive" if held else "dead"
        yield Partial(f"blobs/{path.name}", state, 1, size, 0, _blocks(path), _age(path, now))


def _loose(repo: RepoPaths, linked: set[str], now: float) -> Iterator[Blob]:
    for name in sorted(_names(repo.blobs, [])):
        path = repo.blobs / name
        if name not in linked and not name.endswith(_HF_PARTIAL) and path.is_file() and not path.is_symlink():
            yield _blob(path, now)


def _blob(path: Path, now: float) -> Blob:
    return Blob(path.name, _blocks(path), _age(path, now))


def _engine(folder: Path, now: float, unreadable: list[str]) -> Iterator[EngineCache]:
    for user in sorted(_names(folder, unreadable)):
        if user.isdigit() and not (folder / user).is_symlink():
            for key in sorted(_names(folder / user, unreadable)):
                cache = folder / user / key
                ages = [age for age in (_age(cache, now), _age(cache / LOCK, now)) if age is not None]
                yield EngineCache(int(user), key, _disk(cache), min(ages, default=None))


def _disk(folder: Path) -> int:
    """Bytes on the disk of all that is below `folder`, each file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(top, name))  # noqa: PTH118 (one of 10^5)
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * _BLOCK
    return total


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _BLOCK
    except OSError:
        return 0


def _age(path: Path, now: float) -> float | None:
    """Seconds since the last change; a clock that was set back makes nothing younger than new."""
    try:
        return max(0.0, now - path.lstat().st_mtime)
    except OSError:
        return None

"""Weights out of a bundle: a source like any other, so that the cache ends as after a download.

Where the bundle lies whole on the filesystem of the cache, files are cloned or linked; else each is read once and
written once, in ranges side by side, hashed on its way, and a cut goes on where it ended.
"""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from nimctl.bundle.model import WEIGHTS, Entry, Weights
from nimctl.bundle.problems import damaged, invalid
from nimctl.bundle.shelf import Shelf
from nimctl.core.cache import FILE_MODE, CachePaths, Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import OnProgress, Stop, open_source, store
from nimctl.core.fetch.laying import clone
from nimctl.core.fetch.manifest import File, Manifest, from_json
from nimctl.core.fetch.protocol import Interrupted
from nimctl.core.fetch.sources.checksums import MANIFEST

FOLDER = "folder"  # the source of weights that lie in a folder of the user, as a lock calls it
_LARGEST = 64 * 2**20  # bytes of the manifest
_LINKED_FROM = 64 * 2**20


def manifest_of(shelf: Shelf) -> Manifest:
    """The manifest of the checkpoint in the bundle. Raises `bundle-*`."""
    try:
        return from_json(shelf.json(f"{WEIGHTS}/{MANIFEST}", _LARGEST))
    except ValueError as error:
        raise invalid(f"{WEIGHTS}/{MANIFEST} cannot be used: {error}"[:600], shelf.name) from error


def require_chain(shelf: Shelf, weights: Weights) -> None:
    """Raises `bundle-invalid` where the files are not those of the manifest, or belong to another place in a cache."""
    manifest = manifest_of(shelf)
    try:
        repo = CachePaths(Path("/")).repo(weights.repo, weights.part)
        repo.snapshot(manifest.revision)
        for ref in weights.refs:
            repo.ref(ref)
        if weights.source != FOLDER:
            place = open_source(weights.source, Path("/"))
            if place.in_place or (place.repo, place.part) != (weights.repo, weights.part):
                raise ValueError(f"{weights.repo!r:.200} is not where {weights.source!r:.200} belongs")
        elif not weights.repo.startswith("local/") or weights.refs:
            raise ValueError("they came from a folder")
    except (ValueError, NimctlError) as error:
        raise invalid(f"the weights in it have no place in a cache: {error}", shelf.name) from error
    if (manifest.source, manifest.revision, manifest.total) != (weights.source, weights.revision, weights.size):
        raise invalid("its weights are of another source, revision or size than their manifest", shelf.name)
    entries = {entry.path: entry for entry in shelf.bundle.below(WEIGHTS)}
    if set(entries) != {f"{WEIGHTS}/{file.path}" for file in manifest.files} | {f"{WEIGHTS}/{MANIFEST}"}:
        raise invalid("its weights are not the files that their manifest names", shelf.name)
    for file in manifest.files:
        entry = entries[f"{WEIGHTS}/{file.path}"]
        expected = file.expected
        if entry.size != file.size or (expected and expected.algorithm == "sha256" and expected.hex != entry.sha256):
            raise invalid(f"{entry.path} is not the file that the manifest of the weights names", shelf.name)


def load(shelf: Shelf, weights: Weights, cache: Path, *, named: bool, on_progress: OnProgress, stop: Stop) -> Path:
    """Bring the checkpoint into the cache; the folder of its revision. Does nothing where it is there already.

    Not `named`, no name leads to it yet and it does not count as complete, so that it can be judged first. Raises
    `bundle-damaged`, `disk-full`, `cache-*`, and `interrupted` once `stop` is set.
    """
    manifest = manifest_of(shelf)
    for file in manifest.files:
        if file.expected is None or file.expected.algorithm != "sha256":  # by the bundle's own sum; these are small
            for _ in shelf.read(shelf.bundle.entry(f"{WEIGHTS}/{file.path}")):
                pass
    paths = CachePaths(cache)
    kind = _Linked if _is_linkable(shelf, cache) else _Copied
    source = kind(shelf, weights if named else replace(weights, refs=()), manifest)
    try:
        return store.ensure(source, manifest, paths, on_progress, stop=stop, only=None if named else lambda _: True)
    except NimctlError as error:
        if error.id in ("weights-corrupt", "weights-source-failed"):
            raise damaged(shelf.name, [f"{WEIGHTS}: {error.message}"], cause=error.cause) from error
        raise


def _is_linkable(shelf: Shelf, cache: Path) -> bool:
    """Whether files can become the cache's own without a copy."""
    if any(entry.parts for entry in shelf.bundle.below(WEIGHTS)):
        return False
    nearest = next(p for p in (cache, *cache.parents) if p.exists())
    return all(root.stat().st_dev == nearest.stat().st_dev for root in shelf.roots)


@dataclass(frozen=True)
class _Linked:
    """A source that lets the files of the bundle become those of the cache."""

    shelf: Shelf
    weights: Weights
    manifest: Manifest
    in_place: None = None

    @property
    def repo(self) -> str:
        return self.weights.repo

    @property
    def part(self) -> Part:
        return self.weights.part

    def resolve(self) -> Manifest:
        return self.manifest

    @property
    def refs(self) -> tuple[str, ...]:
        return self.weights.refs

    def open_range(self, file: File, start: int, stop: int) -> "_Range":
        return _Copied(self.shelf, self.weights, self.manifest).open_range(file, start, stop)

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        """Clone, link or copy every file; the caller hashes them."""
        for file in manifest.files:
            origin, place = self.shelf.place(f"{WEIGHTS}/{file.path}"), folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if clone(origin, place) or (file.size >= _LINKED_FROM and _link(origin, place)):
                continue
            shutil.copyfile(origin, place)


def _link(origin: Path, place: Path) -> bool:
    """Whether `place` is another name of `origin`, with the mode and group of the cache; a file of others is copied."""
    found = origin.stat()
    if found.st_uid != os.geteuid():
        return False
    try:
        place.hardlink_to(origin)
        os.chown(place, -1, place.parent.stat().st_gid)
        place.chmod(FILE_MODE)
    except OSError:
        with contextlib.suppress(OSError):
            place.unlink()
        return False
    return True


@dataclass(frozen=True)
class _Copied:
    """A source whose ranges are read from the files of the bundle."""

    shelf: Shelf
    weights: Weights
    manifest: Manifest
    in_place: None = None

    @property
    def repo(self) -> str:
        return self.weights.repo

    @property
    def part(self) -> Part:
        return self.weights.part

    @property
    def refs(self) -> tuple[str, ...]:
        return self.weights.refs

    def resolve(self) -> Manifest:
        return self.manifest

    def open_range(self, file: File, start: int, stop: int) -> "_Range":
        return _Range(self.shelf, self.shelf.bundle.entry(f"{WEIGHTS}/{file.path}"), start, stop)


class _Range:
    """Bytes of one range, over the parts."""

    def __init__(self, shelf: Shelf, entry: Entry, start: int, stop: int) -> None:
        self._shelf, self._entry = shelf, entry
        self._at, self._stop = start, stop
        self._open: tuple[int, int, object] | None = None
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; 0 at the end."""
        if self._aborted:
            raise Interrupted("it was given up")
        if self._at >= self._stop:
            return 0
        begin = 0
        for piece in self._entry.pieces:
            if self._at < begin + piece.size:
                break
            begin += piece.size
        try:
            content = self._shelf.open(piece)
            with content:
                content.seek(self._at - begin)
                most = min(len(buffer), self._stop - self._at, begin + piece.size - self._at)
                count: int = content.readinto(buffer[:most])  # type: ignore[attr-defined]
        except OSError as error:
            raise Interrupted(f"{piece.path} cannot be read ({error.strerror})") from error
        if not count:
            raise Interrupted(f"{piece.path} ended early")
        self._at += count
        return count

    def abort(self) -> None:
        """Give it up."""
        self._aborted = True

    def close(self) -> None:
        """Nothing is held open."""


def of_manifest(manifest: Manifest) -> bytes:
    """The manifest as it lies in a bundle."""
    return (json.dumps(replace(manifest).to_json(), indent=1) + "\n").encode()

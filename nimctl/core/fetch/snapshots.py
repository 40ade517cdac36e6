"""What the cache holds already: complete revisions by their markers, names of revisions, and what others left behind.

Reads names and sizes, never weights: a warm start of a 600 GB checkpoint takes milliseconds.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from nimctl.core.cache import RepoPaths
from nimctl.core.fetch import digests
from nimctl.core.fetch.manifest import File, Manifest, from_json

# In the markers' folder: name and size of each blob that was verified, a line each, and the key of the file where the
# source knows no digest.
SEALED = "sealed"
_LONGEST_REF = 256  # bytes; a revision has 40


def marked(repo: RepoPaths, revision: str) -> Manifest | None:
    """The manifest in the marker of `revision`, whatever became of the files since; None without a marker."""
    try:
        return from_json(json.loads(repo.marker(revision).read_bytes()))
    except (OSError, ValueError):
        return None


def doubted(repo: RepoPaths, revision: str) -> Manifest | None:
    """The manifest of a marker that was taken back because a check found wrong bytes."""
    try:
        return from_json(json.loads(doubt(repo, revision).read_bytes()))
    except (OSError, ValueError):
        return None


def doubt(repo: RepoPaths, revision: str) -> Path:
    """Where the marker of `revision` goes when it is taken back."""
    return repo.marker(revision).with_suffix(".doubted")


def complete(repo: RepoPaths, revision: str) -> Manifest | None:
    """The manifest of `revision` if it was verified once and every file still has its size; None otherwise."""
    manifest = marked(repo, revision)
    if manifest is None or manifest.revision != revision:
        return None
    snapshot = str(repo.snapshot(revision))
    try:
        # os.stat with one string: of 64 files and more, pathlib would take longer than the kernel
        whole = all(os.stat(f"{snapshot}/{file.path}").st_size == file.size for file in manifest.files)  # noqa: PTH116
    except OSError:
        return None
    return manifest if whole else None


def revision_at(repo: RepoPaths, name: str) -> str | None:
    """The revision that `refs/<name>` says, None where it says nothing usable."""
    try:
        with repo.ref(name).open("rb") as file:
            revision = file.read(_LONGEST_REF).decode("ascii").strip()
        repo.snapshot(revision)
    except (OSError, ValueError):
        return None
    return revision


def marked_revisions(repo: RepoPaths) -> list[str]:
    """Every revision that has a marker, sorted."""
    try:
        return sorted(p.name.removesuffix(".json") for p in repo.markers.iterdir() if p.name.endswith(".json"))
    except OSError:
        return []


def revisions(repo: RepoPaths) -> list[str]:
    """Every revision that has a folder, sorted."""
    try:
        return sorted(p.name for p in repo.snapshots.iterdir() if not p.name.startswith("."))
    except OSError:
        return []


def verified_blobs(repo: RepoPaths) -> dict[str, int]:
    """Size in bytes by name of every blob that was verified before it got its name: these need no second reading."""
    vouched: dict[str, int] = {}
    for name, size, _ in _sealed(repo):
        vouched[name] = size
    for revision in marked_revisions(repo):
        if manifest := marked(repo, revision):
            vouched |= {file.expected.hex: file.size for file in manifest.files if file.expected}
    return vouched


def names_of_undigested(repo: RepoPaths) -> dict[str, str]:
    """The name of the blob by the key of each file that was fetched without knowing its digest."""
    return {key: name for name, _, key in _sealed(repo) if key}


def _sealed(repo: RepoPaths) -> Iterator[tuple[str, int, str]]:
    with contextlib.suppress(OSError, ValueError):
        for line in (repo.markers / SEALED).read_text(encoding="ascii").splitlines():
            name, size, key = (*line.split(" "), "", "")[:3]
            if size.isdigit():
                yield name, int(size), key


def found(repo: RepoPaths, revision: str, source: str) -> Manifest | None:
    """The manifest of what lies in the snapshot `revision`, whoever put it there; None where there is no config.json.

    Digests are those that the blobs' names promise: nothing is verified by this.
    """
    folder = repo.snapshot(revision)
    files: list[File] = []
    try:
        for path in files_of(folder):
            name = Path(os.path.realpath(path)).name
            promised = digests.of_blob_name(name)
            relative = path.relative_to(folder).as_posix()
            files.append(File(relative, path.stat().st_size, str(promised) if promised else None))
    except (OSError, ValueError):  # a dangling link: its download was not finished
        return None
    if not any(file.path == "config.json" for file in files):
        return None
    return Manifest(source, revision, tuple(sorted(files, key=lambda file: file.path)))


def files_of(folder: Path) -> Iterator[Path]:
    """Every file and link below `folder`, sorted within each folder. Raises OSError."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from files_of(entry)
        else:
            yield entry

"""Checkpoints on the fault hub, and the question whether a cache holds them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.fetch import snapshots
from nimctl.core.fetch.manifest import File
from tests.lib.fault_hub import Content, FaultHub, sha256_of
from tests.lib.fault_hub.content import as_content
from tests.lib.fetcher import Checkpoint, checkpoint


@dataclass(frozen=True)
class Served:
    """A checkpoint, and the digest that each of its files must have."""

    wanted: Checkpoint
    sha256: Mapping[str, str]

    @property
    def size(self) -> int:
        return self.wanted.manifest.total

    def repo(self, cache: Path) -> RepoPaths:
        return CachePaths(cache).repo(self.wanted.repo)

    def snapshot(self, cache: Path) -> Path:
        return self.repo(cache).snapshot(self.wanted.manifest.revision)

    def faults_of(self, cache: Path) -> list[str]:
        """What is wrong with the cache after a fetch; nothing, where all is well."""
        repo, found = self.repo(cache), []
        for path, expected in self.sha256.items():
            try:
                if digest(self.snapshot(cache) / path) != expected:
                    found.append(f"{path} has wrong bytes")
            except OSError as error:
                found.append(f"{path}: {error}")
        if snapshots.complete(repo, self.wanted.manifest.revision) is None:
            found.append("there is no marker, or files have not its sizes")
        return found + [f"{p} was left behind" for p in left_behind(repo)] + false_promises(repo)

    def is_marked(self, cache: Path) -> bool:
        return self.repo(cache).marker(self.wanted.manifest.revision).exists()


def left_behind(repo: RepoPaths) -> list[Path]:
    """Everything in `.partial` but the lock, and but a writer's folder without any bytes.

    Such a one stays when the kill comes after the marker was written: the next writer takes it away.
    """
    found = (p for p in repo.partial.glob("*") if p.name != ".turn")
    return sorted(p for p in found if not p.is_dir() or any(not q.name.startswith(".") for q in p.iterdir()))


def false_promises(repo: RepoPaths) -> list[str]:
    """Blobs whose content is not what their name says, and markers of revisions that are not whole."""
    found = [f"blob {p.name} has other bytes" for p in sorted(repo.blobs.glob("*")) if digest(p) != p.name]
    marked = snapshots.marked_revisions(repo)
    return found + [f"{r} is marked and not whole" for r in marked if snapshots.complete(repo, r) is None]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def serve(
    hub: FaultHub, files: Mapping[str, bytes | Content], *, repo: str = "test/web", undigested: tuple[str, ...] = ()
) -> Served:
    """Put `files` on the hub; the source tells the digest of all but `undigested`."""
    contents = {path: as_content(content) for path, content in sorted(files.items())}
    sha256 = {path: sha256_of(content) for path, content in contents.items()}
    urls = {path: hub.add_file(f"{repo}/{path}", content) for path, content in contents.items()}
    listed = tuple(
        File(path, content.size, None if path in undigested else f"sha256:{sha256[path]}")
        for path, content in contents.items()
    )
    wanted = checkpoint(urls, listed)
    return Served(Checkpoint(wanted.manifest, urls, repo), sha256)

"""Fault: the machine crashes. Killing a process loses no page, so here the order of the calls is looked at instead.

A name may be given only to bytes that are on the disk, and the marker only when every other name is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nimctl.core.cache import RepoPaths
from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.fault_hub import FaultHub, Sparse
from tests.lib.fetcher import Fetchers, Kill
from tests.lib.web_checkpoints import Served, serve

FILES = {
    "deep/er/x.json": b"[]",
    "config.json": b"{}",
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": Sparse(2 * BLOCK + 5, 1),
    "model-00002-of-00002.safetensors": Sparse(5000, 2),
    "sub/tokenizer.json": b'{"a": 1}',
    "unknown.json": b'{"digest": null}',
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with FaultHub() as hub:
        yield serve(hub, FILES, undigested=("unknown.json",))


@dataclass
class Disk:
    """What a crash would leave of one repository, as the recorded calls tell it one by one."""

    repo: RepoPaths
    wrong: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    _now: int = 0
    _written: dict[str, int] = field(default_factory=dict)  # by path: when it was last written
    _begun: dict[str, list[int]] = field(default_factory=dict)  # by path: when syncs began that have not ended
    _synced: dict[str, int] = field(default_factory=dict)  # by path: when the last sync began that has ended
    _new: dict[str, int] = field(default_factory=dict)  # by path: when a name was given that its folder may still lose

    def take(self, line: str) -> None:
        """One line of `interposed_record`."""
        self._now += 1
        when, kind, path, to = line.split("\t")
        match when, kind:
            case ">", "write":
                self._written[path] = self._now
            case "<", "sync":
                self._begun.setdefault(path, []).append(self._now)
            case ">", "sync":
                self._sync(path, self._begun[path].pop(0))
            case "<", "unlink":
                self._written.pop(path, None)
                self._synced.pop(path, None)
            case ">", "mkdir":
                self._name(path)
            case "<", "rename":
                self._before_rename(path, to)
            case ">", "rename":
                for known in (self._written, self._synced):
                    known.pop(to, None)
                    if path in known:
                        known[to] = known.pop(path)
                self._name(to)

    def end(self) -> list[str]:
        """What is wrong, now that all has happened."""
        return self.wrong + [f"{name} may be lost at the end" for name in self._lost()]

    def _sync(self, path: str, begun: int) -> None:
        self._synced[path] = begun
        for name, given in list(self._new.items()):
            if str(Path(name).parent) == path and given < begun:
                del self._new[name]

    def _before_rename(self, path: str, to: str) -> None:
        if not self._counts(to):
            return
        is_link = self.repo.snapshots in Path(to).parents
        if not is_link and self._synced.get(path, 0) <= self._written.get(path, 0):
            self.wrong.append(f"{self._short(to)} is named before its bytes are on the disk")
        if self._is_marker(to):
            self.wrong += [f"{name} may be lost when the marker is named" for name in self._lost()]

    def _name(self, path: str) -> None:
        if self._counts(path):
            self._new[path] = self._now
            self.named.append(self._short(path))

    def _counts(self, path: str) -> bool:
        """Whether the marker promises it."""
        place = Path(path)
        return self.repo.folder in place.parents and self.repo.partial not in (place, *place.parents)

    def _is_marker(self, path: str) -> bool:
        return Path(path).parent == self.repo.markers and path.endswith(".json")

    def _lost(self) -> list[str]:
        return [self._short(name) for name in self._new]

    def _short(self, path: str) -> str:
        return str(Path(path).relative_to(self.repo.folder))


def disk_after(fetchers: Fetchers, served: Served, folder: Path, unsynced: tuple[str, ...] = ()) -> Disk:
    record = folder / "record"
    ended = fetchers.run(folder / "cache", served.wanted, record=record, unsynced=unsynced)
    assert ended.code == 0, ended
    assert served.faults_of(folder / "cache") == []
    disk = Disk(served.repo(folder / "cache"))
    for line in record.read_text().splitlines():
        disk.take(line)
    return disk


def assert_all_was_seen(disk: Disk, served: Served) -> None:
    revision = served.wanted.manifest.revision
    expected = {f"blobs/{digest}" for digest in served.sha256.values()}
    expected |= {f"snapshots/{revision}/{path}" for path in FILES} | {"refs/main", f".complete/{revision}.json"}
    assert expected <= set(disk.named), "these must have got their names by renames that were recorded"


def test_every_name_is_given_after_its_bytes_and_the_marker_after_every_name(fetchers, served, tmp_path):
    disk = disk_after(fetchers, served, tmp_path)
    assert_all_was_seen(disk, served)
    assert disk.end() == []


def test_so_it_is_for_whoever_goes_on_with_what_a_killed_one_left(fetchers, served, tmp_path):
    killed = fetchers.run(tmp_path / "cache", served.wanted, kill=Kill("rename", 9))
    assert killed.code < 0
    disk = disk_after(fetchers, served, tmp_path)
    assert f".complete/{served.wanted.manifest.revision}.json" in disk.named
    assert disk.end() == []


@pytest.mark.parametrize(
    "unsynced, told",
    [
        ("transfer.blocks:BlockFile.seal", "blobs/{digest} is named before its bytes are on the disk"),
        ("install:sync_folder", "blobs/{digest} may be lost when the marker is named"),
        ("install:sync_folder", "snapshots/{revision}/sub/tokenizer.json may be lost when the marker is named"),
        ("install:sync_folder", ".complete/{revision}.json may be lost at the end"),
        ("install:blob", "blobs/{digest} may be lost when the marker is named"),
        ("install:_write", "refs/main is named before its bytes are on the disk"),
        ("install:_write", "refs/main may be lost when the marker is named"),
        ("install:_write", ".complete/{revision}.json is named before its bytes are on the disk"),
        ("install:_write", ".complete/{revision}.json may be lost at the end"),
    ],
)
def test_a_sync_that_is_left_out_is_noticed(fetchers, served, tmp_path, unsynced, told):
    """A test of the test: the same fetch, in which one function forces nothing to the disk."""
    disk = disk_after(fetchers, served, tmp_path, (unsynced,))
    assert_all_was_seen(disk, served)
    digest = served.sha256["model-00001-of-00002.safetensors"]
    assert told.format(digest=digest, revision=served.wanted.manifest.revision) in disk.end()

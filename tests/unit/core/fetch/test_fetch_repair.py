"""Checking and mending: what is vouched for, what is taken back, and which bytes are read or fetched."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots, store, verify
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.upkeep import inventory, repair
from nimctl.core.fetch.upkeep.repair import Checked, Job
from tests.lib.checkpoints import CONTENT, TinySource, read_tree, safetensors, sha256
from tests.unit.core.fetch.test_fetch_inventory import left_by_hf

COMMIT = "c" * 40
NEW = {**CONTENT, "config.json": b'{"new": 1}'}


@dataclass
class Place:
    """A cache with its repository, and what a check of it says."""

    root: Path

    @property
    def repo(self) -> RepoPaths:
        return CachePaths(self.root).repo("test/tiny")

    def fetch(self, content: dict[str, bytes]) -> str:
        source = TinySource(dict(content))
        manifest = source.resolve()
        store.ensure(source, manifest, CachePaths(self.root), lambda _: None)
        return manifest.revision

    def jobs(self, revision: str | None = None) -> list[Job]:
        held = inventory.take(self.root)
        return [
            repair.job_for(self.root, o, r)
            for o in held.repositories
            for r in o.revisions
            if revision in (None, r.revision)
        ]

    def check(self, revision: str | None = None) -> list[Checked]:
        return repair.check(self.root, self.jobs(revision), lambda _: None, Stop())

    def flip(self, revision: str, path: str) -> Path:
        blob = (self.repo.snapshot(revision) / path).resolve()
        content = bytearray(blob.read_bytes())
        content[-1] ^= 0x80
        blob.write_bytes(content)
        return blob


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_damaged_blob_takes_the_marker_of_every_revision_that_has_it(place):
    old, new = place.fetch(CONTENT), place.fetch(NEW)
    blob = place.flip(new, "model.safetensors")
    [result] = place.check(new)
    assert [(f.path, f.blob, f.condition) for f in result.bad] == [("model.safetensors", str(blob), "wrong-digest")]
    assert result.bad[0].expected == f"sha256:{blob.name}"
    for revision in (old, new):
        assert snapshots.complete(place.repo, revision) is None
    assert blob.name not in snapshots.verified_blobs(place.repo)
    assert {r.state for r in inventory.take(place.root).repositories[0].revisions} == {"damaged"}


def test_damage_in_one_revision_leaves_the_other_alone(place):
    old, new = place.fetch(CONTENT), place.fetch(NEW)
    place.flip(new, "config.json")
    assert [r.outcome for r in sorted(place.check(), key=lambda r: r.revision != old)] == ["right", "bad"]
    assert snapshots.complete(place.repo, old) and not snapshots.complete(place.repo, new)


def test_what_was_doubted_and_is_right_again_is_trusted_again(place):
    revision = place.fetch(CONTENT)
    blob = place.flip(revision, "model.safetensors")
    place.check()
    blob.write_bytes(CONTENT["model.safetensors"])
    [result] = place.check()
    assert result.outcome == "right" and result.marked
    assert snapshots.complete(place.repo, revision).source == "builtin://tiny"
    assert not snapshots.doubt(place.repo, revision).exists()


def test_mending_replaces_what_is_bad(place):
    revision = place.fetch(CONTENT)
    place.flip(revision, "model.safetensors")
    (place.repo.snapshot(revision) / "config.json").resolve().unlink()
    [job], [result] = place.jobs(), place.check()
    assert sorted(f.condition for f in result.bad) == ["missing", "wrong-digest"]
    source = TinySource()
    mended = repair.mend(place.root, job, result, lambda _: source, lambda _: None, stop=Stop())
    assert (mended.outcome, mended.error, source.calls) == ("repaired", None, 1)
    assert read_tree(place.repo.snapshot(revision)) == CONTENT and snapshots.complete(place.repo, revision)
    assert [r.outcome for r in place.check()] == ["right"]


def test_a_source_that_has_moved_on_mends_nothing_and_says_so(place):
    revision = place.fetch(CONTENT)
    blob = place.flip(revision, "model.safetensors")
    [job], [result] = place.jobs(), place.check()
    damaged = blob.read_bytes()
    mended = repair.mend(place.root, job, result, lambda _: TinySource(dict(NEW)), lambda _: None, stop=Stop())
    assert mended.outcome == "bad" and mended.error.id == "weights-revision-unknown"
    assert blob.read_bytes() == damaged and not snapshots.complete(place.repo, revision)


def test_what_others_left_is_marked_when_right_and_not_when_something_is_missing(place):
    folder = left_by_hf(place.root, CONTENT, name="test/tiny")
    [result] = place.check()
    assert (result.outcome, result.marked, result.source) == ("right", True, f"hf://test/tiny:{COMMIT}")
    place.repo.marker(COMMIT).unlink()
    (folder / "blobs" / sha256(CONTENT["config.json"]).partition(":")[2]).unlink()
    [result] = place.check()
    assert (result.outcome, result.marked) == ("bad", False)
    assert [(f.path, f.condition) for f in result.bad] == [("config.json", "missing")]


def test_files_without_a_known_digest_are_named_and_get_no_mark(place):
    left_by_hf(place.root, CONTENT, name="test/tiny")
    link = place.repo.snapshot(COMMIT) / "config.json"
    plain = place.repo.blobs / "0x123-4"
    link.resolve().rename(plain)
    link.unlink()
    link.symlink_to(os.path.relpath(plain, link.parent))
    [result] = place.check()
    assert (result.outcome, result.unhashed, result.marked) == ("right", ("config.json",), False)


def test_a_blob_that_two_revisions_share_is_read_once(place, monkeypatch):
    place.fetch(CONTENT)
    place.fetch(NEW)
    judged: list[Path] = []
    real = verify.judge

    def judge(items, **options):
        judged.extend(path for path, _ in items)
        return real(items, **options)

    monkeypatch.setattr(verify, "judge", judge)
    place.check()
    assert len(judged) == 4  # two config.json, and one of each other


def test_stopped_it_changes_nothing(place):
    revision = place.fetch(CONTENT)
    place.flip(revision, "model.safetensors")
    stop = Stop()
    stop.set()
    with pytest.raises(NimctlError) as caught:
        repair.check(place.root, place.jobs(), lambda _: None, stop)
    assert caught.value.id == "interrupted" and snapshots.complete(place.repo, revision)


@pytest.mark.parametrize(
    ("source", "pinned"),
    [
        ("hf://org/name", f"hf://org/name:{COMMIT}"),
        ("hf://org/name:main?file=a.json", f"hf://org/name:{COMMIT}?file=a.json"),
        ("hf://org/name@main", f"hf://org/name:{COMMIT}"),
        ("ngc://org/team/name", f"ngc://org/team/name:{COMMIT}"),
        ("s3://bucket/name", "s3://bucket/name"),
        ("https://host:8080/name", "https://host:8080/name"),
    ],
)
def test_an_address_is_pinned_to_the_revision_where_it_can_say_one(source, pinned):
    assert repair.pinned(source, COMMIT) == pinned


@pytest.mark.parametrize("size", [0, 1, 4096, 4 * 2**20, 4 * 2**20 + 1, 9 * 2**20 + 17])
def test_every_size_and_every_bit_counts(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    path = tmp_path / "blob"
    path.write_bytes(content)
    file = File("blob", size, sha256(content))
    told: list[int] = []
    [verdict] = verify.judge([(path, file)], on_bytes=lambda done, _: told.append(done), stop=Stop())
    assert verdict.condition == "right" and told == sorted(told) and told[-1:] in ([], [size])
    for offset in sorted({0, size // 2, size - 1} if size else set()):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        with path.open("rb") as written:
            os.fsync(written.fileno())
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk this time
        [verdict] = verify.judge([(path, file)], on_bytes=lambda _, __: None, stop=Stop())
        assert verdict.condition == "wrong-digest"


def test_what_cannot_be_read_is_told_apart(tmp_path):
    there = tmp_path / "a"
    there.write_bytes(safetensors(10))
    wanted = [
        (tmp_path / "none", File("none", 1, sha256(b"a")), "missing"),
        (there, File("a", 1, sha256(b"a")), "wrong-size"),
        (tmp_path, File("folder", tmp_path.stat().st_size, sha256(b"a")), "unreadable"),
        (there, File("a", there.stat().st_size), "unhashed"),
    ]
    verdicts = verify.judge([(p, f) for p, f, _ in wanted], on_bytes=lambda _, __: None, stop=Stop())
    assert [v.condition for v in verdicts] == [condition for _, _, condition in wanted]
    assert [v.bad for v in verdicts] == [True, True, True, False]

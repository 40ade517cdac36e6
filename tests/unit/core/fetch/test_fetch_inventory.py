"""What the cache holds: sizes, states, names, what is being written, and what no revision has."""

import fcntl
import os
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.fetch import store
from nimctl.core.fetch.transfer.partial import boot_id
from nimctl.core.fetch.upkeep import inventory
from nimctl.core.fetch.upkeep.inventory import Repository
from tests.lib.checkpoints import CONTENT, TinySource, safetensors, sha256

COMMIT = "c" * 40


def fetched(root: Path, **content: bytes) -> str:
    source = TinySource({**CONTENT, **content})
    manifest = source.resolve()
    store.ensure(source, manifest, CachePaths(root), lambda _: None)
    return manifest.revision


def left_by_hf(root: Path, content: dict[str, bytes], *, name: str = "org/foreign", revision: str = COMMIT) -> Path:
    """A snapshot as huggingface_hub leaves it: blobs by digest, relative links, refs, no marker."""
    repo = CachePaths(root).repo(name)
    for path, data in content.items():
        blob = repo.blobs / sha256(data).partition(":")[2]
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = repo.snapshot(revision) / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    repo.refs.mkdir(exist_ok=True)
    repo.ref("main").write_text(revision)
    return repo.folder


def only(root: Path) -> Repository:
    [repository] = inventory.take(root).repositories
    return repository


def test_no_folder_and_an_empty_one_hold_nothing(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        held = inventory.take(root)
        assert (held.disk, held.repositories, held.engine) == (0, (), ())


def test_a_fetched_checkpoint_is_verified_and_named(tmp_path):
    revision = fetched(tmp_path)
    repository = only(tmp_path)
    [found] = repository.revisions
    assert (repository.part, repository.name) == ("huggingface", "test/tiny")
    assert (found.revision, found.refs, found.state) == (revision, ("main",), "verified")
    assert (found.present, found.files) == (3, 3)
    assert found.bytes == found.total == sum(map(len, CONTENT.values()))
    assert found.source == "builtin://tiny"
    assert repository.loose == () and repository.partials == ()


def test_blobs_that_revisions_share_are_counted_once(tmp_path):
    big = safetensors(10**6)
    fetched(tmp_path, **{"model.safetensors": big})
    fetched(tmp_path, **{"model.safetensors": big, "config.json": b'{"new": 1}'})
    both = only(tmp_path)
    assert len(both.revisions) == 2
    assert [r.refs for r in both.revisions if r.refs] == [("main",)]
    assert sum(revision.bytes for revision in both.revisions) > 2 * len(big)
    assert len(big) < both.disk < 1.2 * len(big)
    assert inventory.take(tmp_path).disk == both.disk


def test_what_hf_left_is_whole_but_not_verified_and_a_dangling_link_makes_it_incomplete(tmp_path):
    folder = left_by_hf(tmp_path, CONTENT)
    [found] = only(tmp_path).revisions
    assert (found.state, found.present, found.files, found.refs) == ("unverified", 3, 3, ("main",))
    next((folder / "blobs").iterdir()).unlink()
    [found] = only(tmp_path).revisions
    assert (found.state, found.present, found.files) == ("incomplete", 2, 3)


def test_shards_that_the_numbers_promise_are_missed(tmp_path):
    name = "model-00001-of-00003.safetensors"
    left_by_hf(tmp_path, {"config.json": b"{}", name: safetensors(10)})
    [found] = only(tmp_path).revisions
    assert (found.state, found.present, found.files) == ("incomplete", 2, 4)


def test_a_marked_revision_that_lost_a_file_is_incomplete(tmp_path):
    revision = fetched(tmp_path)
    repo = CachePaths(tmp_path).repo("test/tiny")
    (repo.snapshot(revision) / "config.json").resolve().unlink()
    [found] = only(tmp_path).revisions
    assert (found.state, found.present, found.files) == ("incomplete", 2, 3)


@pytest.mark.parametrize(("held", "state"), [(True, "alive"), (False, "dead")])
def test_a_download_is_alive_while_its_writer_holds_the_lock(tmp_path, held, state):
    repo = CachePaths(tmp_path).repo("org/name")
    folder = repo.partial / "w-1"
    folder.mkdir(parents=True)
    (folder / ".writer").write_text(boot_id())
    (folder / "aa.data").write_bytes(bytes(10))
    (folder / "aa.journal").write_text('{"size": 10, "block": 4}\nboot x\nb 0\nb 2\nb 2\ntorn')
    with (folder / ".lock").open("w") as lock:
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        [partial] = only(tmp_path).partials
    assert (partial.name, partial.writer, partial.files, partial.bytes, partial.total) == ("w-1", state, 1, 8, 10)


def test_what_hf_is_writing_is_known_by_its_lock(tmp_path):
    folder = left_by_hf(tmp_path, CONTENT)
    (folder / "blobs" / "abc.incomplete").write_bytes(b"12345")
    [partial] = only(tmp_path).partials
    assert (partial.writer, partial.bytes) == ("dead", 5)
    lock = folder.parent / ".locks" / folder.name / "abc.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        [partial] = only(tmp_path).partials
    assert partial.writer == "alive"


def test_blobs_of_no_revision_are_loose_and_engine_caches_are_listed_by_user(tmp_path):
    fetched(tmp_path)
    repo = CachePaths(tmp_path).repo("test/tiny")
    (repo.blobs / ("f" * 64)).write_bytes(bytes(5000))
    (tmp_path / "engine/1000/key-a").mkdir(parents=True)
    (tmp_path / "engine/1000/key-a/kernel.so").write_bytes(bytes(9000))
    (tmp_path / "engine/elsewhere").symlink_to("/usr")
    held = inventory.take(tmp_path)
    assert [blob.name for blob in held.repositories[0].loose] == ["f" * 64]
    assert [(e.uid, e.key) for e in held.engine] == [(1000, "key-a")]
    assert held.engine[0].disk >= 9000


def test_a_name_in_refs_with_slashes_and_one_that_lies_are_read_safely(tmp_path):
    revision = fetched(tmp_path)
    repo = CachePaths(tmp_path).repo("test/tiny")
    (repo.refs / "refs").mkdir()
    (repo.refs / "refs" / "pr").write_text(revision)
    (repo.refs / "evil").write_text("../../../etc")
    [found] = only(tmp_path).revisions
    assert sorted(found.refs) == ["main", "refs/pr"]


def test_the_document_names_no_blobs(tmp_path):
    fetched(tmp_path)
    document = inventory.take(tmp_path).to_json()
    assert "blobs" not in document["repositories"][0]["revisions"][0]

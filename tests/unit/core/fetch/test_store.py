"""A checkpoint installed in the cache: layout, verification, warm start."""

import json
import os
import stat
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, snapshots, store
from tests.lib.checkpoints import CONTENT, TinySource, read_tree

TOTAL = sum(map(len, CONTENT.values()))


@pytest.fixture
def paths(tmp_path):
    return CachePaths(tmp_path / "cache")


@pytest.fixture
def repo(paths):
    return paths.repo("test/tiny")


def ensure(source: TinySource, paths: CachePaths, seen: list[Progress] | None = None) -> Path:
    return store.ensure(source, source.resolve(), paths, (seen if seen is not None else []).append)


def leftovers(repo) -> list[str]:
    """What is in `.partial` beside the lock of the turn."""
    return sorted(p.name for p in repo.partial.iterdir() if p.name != ".turn")


def test_the_layout_is_that_of_the_hugging_face_cache(paths, repo):
    source = TinySource()
    manifest = source.resolve()
    snapshot = ensure(source, paths)
    assert repo.folder == paths.hub / "models--test--tiny"
    assert snapshot == repo.folder / "snapshots" / manifest.revision
    assert read_tree(snapshot) == CONTENT
    assert {f.digest for f in manifest.files} == {f"sha256:{p.name}" for p in (repo.folder / "blobs").iterdir()}
    for file in manifest.files:
        depth = "../" * (2 + file.path.count("/"))
        assert (snapshot / file.path).readlink() == Path(f"{depth}blobs/{file.key}")
    assert (repo.folder / "refs/main").read_text() == manifest.revision
    own = sorted(p.name for p in repo.folder.iterdir())
    assert own == [".complete", ".partial", "blobs", "refs", "snapshots"]
    assert leftovers(repo) == []


def test_folders_are_2770_and_files_0664_under_any_umask(paths):
    before = os.umask(0o077)
    try:
        ensure(TinySource(), paths)
    finally:
        os.umask(before)
    for path in [paths.root, *paths.root.rglob("*")]:
        found = path.lstat()
        if not path.is_symlink():
            assert stat.S_IMODE(found.st_mode) == (0o2770 if path.is_dir() else 0o664), path


def test_the_second_time_nothing_is_made_or_written(paths):
    source = TinySource()
    first = ensure(source, paths)
    stamps = {p: p.lstat().st_mtime_ns for p in paths.root.rglob("*")}
    assert ensure(source, paths) == first
    assert source.calls == 1
    assert {p: p.lstat().st_mtime_ns for p in paths.root.rglob("*")} == stamps


def test_progress_ends_with_every_byte_and_every_file(paths):
    source, seen = TinySource(), list[Progress]()
    ensure(source, paths, seen)
    assert (seen[-1].bytes, seen[-1].total, seen[-1].phase) == (TOTAL, TOTAL, "done")
    assert [p.bytes for p in seen] == sorted(p.bytes for p in seen)
    assert {(f.path, f.bytes, f.state) for f in seen[-1].files} == {(n, len(b), "done") for n, b in CONTENT.items()}
    warm = list[Progress]()
    ensure(source, paths, warm)
    assert [(p.bytes, p.total, p.phase) for p in warm] == [(TOTAL, TOTAL, "done")]


@pytest.mark.parametrize("damage", ["cut", "grown", "gone", "link gone", "marker gone", "marker cut", "marker other"])
def test_damage_is_seen_and_mended(paths, repo, damage):
    source = TinySource()
    revision = source.resolve().revision
    snapshot = ensure(source, paths)
    weights = snapshot / "model.safetensors"
    marker = repo.marker(revision)
    match damage:
        case "cut":
            weights.resolve().write_bytes(b"short")
        case "grown":
            weights.resolve().write_bytes(CONTENT["model.safetensors"] + b"x")
        case "gone":
            weights.resolve().unlink()
        case "link gone":
            weights.unlink()
        case "marker gone":
            marker.unlink()
        case "marker cut":
            marker.write_bytes(marker.read_bytes()[:50])
        case "marker other":
            marker.write_text(json.dumps({**json.loads(marker.read_bytes()), "files": []}))
    assert not store.is_complete(repo, source.resolve())
    assert ensure(source, paths) == snapshot
    assert source.calls == (2 if damage in ("cut", "grown", "gone") else 1), "whole blobs are not made again"
    assert read_tree(snapshot) == CONTENT
    assert store.is_complete(repo, source.resolve())


def test_blobs_that_nobody_vouches_for_are_hashed_before_they_are_used(paths, repo):
    """What another program left in the cache, or what stayed when the markers were removed."""
    source = TinySource()
    snapshot = ensure(source, paths)
    for path in repo.markers.iterdir():
        path.unlink()
    right, wrong = (snapshot / "config.json").resolve(), (snapshot / "model.safetensors").resolve()
    wrong.write_bytes(b"\1" * wrong.stat().st_size)
    assert read_tree(ensure(source, paths)) == CONTENT
    assert source.calls == 2
    assert right.read_bytes() == CONTENT["config.json"]


def test_another_revision_keeps_the_first_and_shares_its_blobs(paths, repo):
    first = ensure(TinySource(), paths)
    changed = {**CONTENT, "config.json": b'{"new": 1}'}
    second = ensure(TinySource(changed), paths)
    assert (read_tree(first), read_tree(second)) == (CONTENT, changed)
    assert len(list(repo.blobs.iterdir())) == 4
    assert (first / "model.safetensors").resolve() == (second / "model.safetensors").resolve()
    assert snapshots.marked_revisions(repo) == sorted([first.name, second.name])


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"short", None])
def test_files_that_differ_from_the_manifest_are_refused_and_leave_nothing(paths, repo, wrong):
    source = TinySource()
    manifest = source.resolve()
    if wrong is None:
        del source.content["model.safetensors"]
    else:
        source.content["model.safetensors"] = wrong
    with pytest.raises(NimctlError) as caught:
        store.ensure(source, manifest, paths, lambda _: None)
    assert caught.value.id == "weights-corrupt"
    assert "model.safetensors" in caught.value.message
    assert not store.is_complete(repo, manifest)
    assert list(repo.blobs.iterdir()) == []
    with pytest.raises(NimctlError):
        store.ensure(source, manifest, paths, lambda _: None)
    source.content = dict(CONTENT)
    assert read_tree(store.ensure(source, manifest, paths, lambda _: None)) == CONTENT
    assert leftovers(repo) == []


def test_names_that_are_taken_by_something_else_are_replaced(paths, repo):
    source = TinySource()
    snapshot = repo.snapshot(source.resolve().revision)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("a file where the link belongs")
    (snapshot / "model.safetensors").symlink_to("/etc/hostname")
    assert read_tree(ensure(source, paths)) == CONTENT


def test_an_empty_source_is_never_a_complete_checkpoint(paths):
    with pytest.raises(NimctlError) as caught:
        ensure(TinySource({}), paths)
    assert caught.value.id == "weights-missing"
    assert not paths.root.exists()

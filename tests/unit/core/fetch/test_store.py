"""A checkpoint installed in the cache: layout, verification, warm start."""

import json
import os
import stat
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, store
from tests.lib.checkpoints import CONTENT, TinySource, read_tree


@pytest.fixture
def paths(tmp_path):
    return CachePaths(tmp_path / "cache")


def ensure(source: TinySource, paths: CachePaths, seen: list[Progress] | None = None) -> Path:
    return store.ensure(source, source.resolve(), paths, (seen if seen is not None else []).append)


def test_the_layout_is_that_of_the_hugging_face_cache(paths):
    source = TinySource()
    manifest = source.resolve()
    snapshot = ensure(source, paths)
    repo = paths.hub / "models--test--tiny"
    assert snapshot == repo / "snapshots" / manifest.revision
    assert read_tree(snapshot) == CONTENT
    assert {f.sha256 for f in manifest.files} == {p.name for p in (repo / "blobs").iterdir()}
    for file in manifest.files:
        depth = "../" * (2 + file.path.count("/"))
        assert (snapshot / file.path).readlink() == Path(f"{depth}blobs/{file.sha256}")
    assert (repo / "refs/main").read_text() == manifest.revision
    assert sorted(p.name for p in repo.iterdir()) == [".complete", "blobs", "refs", "snapshots"], "nothing left over"


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


def test_progress_counts_verified_bytes_up_to_the_total(paths):
    source, seen = TinySource(), list[Progress]()
    ensure(source, paths, seen)
    total = sum(map(len, CONTENT.values()))
    assert seen[-1] == Progress(total, total)
    assert [p.bytes for p in seen] == sorted(p.bytes for p in seen)
    assert {p.file for p in seen} >= set(CONTENT)
    warm = list[Progress]()
    ensure(source, paths, warm)
    assert warm == [Progress(total, total)]


@pytest.mark.parametrize("damage", ["cut", "grown", "gone", "link gone", "marker gone", "marker cut", "marker other"])
def test_damage_is_seen_and_mended(paths, damage):
    source = TinySource()
    snapshot = ensure(source, paths)
    weights = snapshot / "model.safetensors"
    marker = next(paths.repo_dir(source.repo).glob(".complete/*"))
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
    assert store.complete_snapshot(paths, source.repo, source.resolve()) is None
    assert ensure(source, paths) == snapshot
    assert source.calls == 2
    assert read_tree(snapshot) == CONTENT


def test_another_revision_keeps_the_first_and_shares_its_blobs(paths):
    first = ensure(TinySource(), paths)
    changed = {**CONTENT, "config.json": b'{"new": 1}'}
    second = ensure(TinySource(changed), paths)
    assert (read_tree(first), read_tree(second)) == (CONTENT, changed)
    assert len(list((paths.repo_dir("test/tiny") / "blobs").iterdir())) == 4
    assert (first / "model.safetensors").resolve() == (second / "model.safetensors").resolve()


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"short", None])
def test_files_that_differ_from_the_manifest_are_refused_and_leave_nothing(paths, wrong):
    source = TinySource()
    manifest = source.resolve()
    if wrong is None:
        del source.content["model.safetensors"]
    else:
        source.content["model.safetensors"] = wrong
    with pytest.raises(NimctlError) as caught:
        store.ensure(source, manifest, paths, lambda _: None)
    assert caught.value.id == "weights-incomplete"
    assert "model.safetensors" in caught.value.message
    assert store.complete_snapshot(paths, source.repo, manifest) is None
    assert list(paths.repo_dir(source.repo).iterdir()) == []


def test_names_that_are_taken_by_something_else_are_replaced(paths):
    source = TinySource()
    snapshot = paths.snapshot_dir(source.repo, source.resolve().revision)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("a file where the link belongs")
    (snapshot / "model.safetensors").symlink_to("/etc/hostname")
    assert read_tree(ensure(source, paths)) == CONTENT


def test_an_empty_source_is_never_a_complete_checkpoint(paths):
    with pytest.raises(NimctlError) as caught:
        ensure(TinySource({}), paths)
    assert caught.value.id == "weights-missing"
    assert not paths.root.exists()

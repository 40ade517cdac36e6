"""Fault: a source, or another user of the cache, wants bytes written outside of it.

In each of these the place outside is watched: nothing in it may be made, changed or removed.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import install, store
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.sources.listing import remote_file
from tests.lib.checkpoints import CONTENT, TinySource, read_tree
from tests.lib.users import as_user, needs_root, open_folder

NAMES, INSTALLED = 100_000, 2_000
PARTS = (
    "..", ".", "", "...", "..\0", "\0", "a", "b", "blobs", "snapshots", "refs", ".complete", ".partial", "sealed",
    "~", "~root", "etc", "passwd", "C:", "con", "nul", "a\\..\\..", "..\\",
    "%2e%2e", "%2e%2e%2f", "\uff0e\uff0e", "\u2025", "\u202e..",
    "a\n", "\r", "\x7f", "\x1b[2J", "a" * 255, "a" * 256, "é" * 127, "é" * 128, "\udc80", "-rf", "$HOME", "`id`",
    "*", "config.json", ".. ", " ..", "..;", "dev", "proc", "self", "fd", "3", "link",
)  # fmt: skip
SEPARATORS = ("/", "/", "/", "//", "\\", "/./", "/../", "\u2215")
STARTS = ("", "", "", "/", "//", "../", "./", "file:///", "\\\\host\\", "{outside}/")


def hostile_names(count: int, outside: Path) -> Iterator[str]:
    """Generated names, the same in every run."""
    chosen = random.Random(20_260)
    for _ in range(count):
        name = chosen.choice(STARTS).format(outside=outside)
        for number in range(chosen.randint(1, 6)):
            name += (chosen.choice(SEPARATORS) if number else "") + chosen.choice(PARTS)
            name += str(chosen.randrange(100)) if chosen.random() < 0.3 else ""
        yield name


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder beside the cache, with a file that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("untouched")
    return folder


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = [folder, *folder.rglob("*")]
    return {str(p): (p.lstat().st_ino, p.lstat().st_mtime_ns, p.lstat().st_mode) for p in found}


def test_a_hundred_thousand_generated_names_write_nothing_outside_the_cache(tmp_path, outside):
    """All of them through the check of names, and two thousand that pass it through the real installation."""
    before, cache = state(outside), tmp_path / "cache"
    paths, accepted, refused = CachePaths(cache), dict[str, File](), 0
    root = str(cache)
    for name in hostile_names(NAMES, outside):
        try:
            file = remote_file(name, 2, None, "a test")
        except NimctlError as error:
            assert error.id == "weights-unsafe-name"
            refused += 1
            continue
        assert os.path.normpath(f"{root}/{name}") == f"{root}/{name}", "each part of it is a plain name"
        accepted[name] = file
    assert refused > NAMES / 3
    assert len(accepted) > INSTALLED

    repo = paths.repo("test/names")
    for folder in (repo.blobs, repo.partial):
        folder.mkdir(parents=True)
    (repo.blobs / "blob").write_text("{}")
    chosen = random.Random(1).sample(sorted(accepted), INSTALLED)
    files = tuple(accepted[name] for name in tops_apart(chosen))
    assert len(files) > INSTALLED / 10
    manifest = Manifest("https://test/names", "f" * 40, files)
    names = dict.fromkeys((file.key for file in files), "blob")
    install.snapshot(paths, repo, manifest, names, private=repo.partial, refs=("main",))
    assert store.is_complete(repo, manifest)
    assert {str(p.relative_to(repo.snapshot("f" * 40))) for p in links(repo.snapshot("f" * 40))} == {
        file.path for file in files
    }
    assert state(outside) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "outside"]


def tops_apart(names: list[str]) -> list[str]:
    """Those of `names` that do not want a file where another one wants a folder."""
    kept, folders = set[str](), set[str]()
    for name in names:
        above = {str(parent) for parent in Path(name).parents}
        if name not in folders and not above & kept:
            kept.add(name)
            folders |= above
    return sorted(kept)


def links(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_symlink()]


@needs_root
@pytest.mark.parametrize(
    "place",
    ["huggingface", "{repo}", "{repo}/blobs", "{repo}/snapshots", "{repo}/snapshots/{revision}", "{repo}/refs",
     "{repo}/snapshots/{revision}/sub", "{repo}/.partial", "{repo}/.complete"],
)  # fmt: skip
def test_nothing_is_written_through_a_folder_that_a_stranger_made_a_link(place):
    with open_folder() as top:
        outside, root = top / "outside", top / "cache"
        outside.mkdir()
        outside.chmod(0o777)
        before = state(outside)
        source = TinySource()
        repo = "huggingface/hub/models--test--tiny"
        link = root / place.format(repo=repo, revision=source.resolve().revision)
        link.parent.mkdir(parents=True)
        for folder in (root, *root.rglob("*")):
            folder.chmod(0o2770)
        link.symlink_to(outside)
        os.lchown(link, 4242, 0)
        with pytest.raises(NimctlError) as caught:
            as_user(lambda: store.ensure(source, source.resolve(), CachePaths(root), lambda _: None))
        assert caught.value.id == "cache-not-writable"
        assert str(link) in caught.value.message
        assert "4242" in caught.value.cause
        assert state(outside) == before
        os.lchown(link, 0, 0)
        snapshot = as_user(lambda: store.ensure(source, source.resolve(), CachePaths(root), lambda _: None))
        found = {name: (snapshot / name).read_bytes() for name in CONTENT}
        assert found == CONTENT, "a link that root made is his choice"


@pytest.mark.parametrize("name", [".complete/sealed", ".partial/.turn"])
def test_no_file_of_ours_is_written_through_a_link(tmp_path, outside, name):
    paths, source = CachePaths(tmp_path / "cache"), TinySource()
    link = paths.repo(source.repo).folder / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "precious")
    before = state(outside)
    with pytest.raises(NimctlError) as caught:
        store.ensure(source, source.resolve(), paths, lambda _: None)
    assert caught.value.id == "cache-not-writable"
    assert (outside / "precious").read_text() == "untouched"
    assert state(outside) == before


def test_links_in_place_of_files_are_replaced_and_not_followed(tmp_path, outside):
    paths, source = CachePaths(tmp_path / "cache"), TinySource()
    manifest = source.resolve()
    repo = paths.repo(source.repo)
    taken = [
        *(repo.blobs / file.key for file in manifest.files),
        *(repo.snapshot(manifest.revision) / file.path for file in manifest.files),
        repo.marker(manifest.revision),
        repo.ref("main"),
    ]
    for path in taken:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside / "precious")
    before = state(outside)
    assert read_tree(store.ensure(source, manifest, paths, lambda _: None)) == CONTENT
    assert state(outside) == before
    assert store.is_complete(repo, manifest)

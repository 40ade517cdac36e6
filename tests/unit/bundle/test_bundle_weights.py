"""Weights out of a bundle: the cache ends as after a download."""

import json
import shutil
from pathlib import Path

import pytest

from nimctl.bundle import weights
from nimctl.bundle.shelf import Shelf
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop, snapshots
from tests.lib import bundles


def loaded(folder: Path, cache: Path) -> Path:
    shelf = Shelf([folder])
    assert shelf.bundle.weights
    return weights.load(shelf, shelf.bundle.weights, cache, named=True, on_progress=bundles.ignore, stop=Stop())


@pytest.mark.parametrize("split", [None, bundles.SPLIT], ids=["whole", "split"])
def test_the_cache_is_as_after_a_download(tmp_path: Path, split: int | None) -> None:
    bundles.pack(tmp_path / "bundle", split)
    cache = tmp_path / "cache"
    folder = loaded(tmp_path / "bundle", cache)
    repo = CachePaths(cache).repo("org/tiny")
    assert folder == repo.snapshot("a" * 40)
    assert snapshots.complete(repo, "a" * 40) == bundles.manifest_of()
    assert snapshots.revision_at(repo, "main") == "a" * 40
    assert {path: (folder / path).read_bytes() for path in bundles.WEIGHTS} == bundles.WEIGHTS
    assert sorted(p.name for p in repo.blobs.iterdir()) == sorted(f.key for f in bundles.manifest_of().files)
    assert all(p.stat().st_mode & 0o777 == 0o664 for p in repo.blobs.iterdir())
    assert repo.blobs.stat().st_mode & 0o7777 == 0o2770
    before = {path: path.stat().st_mtime_ns for path in repo.blobs.iterdir()}
    assert loaded(tmp_path / "bundle", cache) == folder
    assert {path: path.stat().st_mtime_ns for path in repo.blobs.iterdir()} == before


def test_large_weights_on_the_same_disk_become_the_cache_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_LINKED_FROM", 1000)
    monkeypatch.setattr(weights, "clone", lambda *_: False)
    bundles.pack(tmp_path / "bundle")
    folder = loaded(tmp_path / "bundle", tmp_path / "cache")
    blob = (folder / "model.safetensors").resolve()
    assert blob.samefile(tmp_path / "bundle/weights/model.safetensors")
    assert blob.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize("split", [None, bundles.SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize("name", ["model.safetensors", "sub/tokenizer.json"])
def test_a_damaged_file_is_never_taken_for_weights(tmp_path: Path, split: int | None, name: str) -> None:
    bundles.pack(tmp_path / "bundle", split)
    place = Shelf([tmp_path / "bundle"]).bundle.entry(f"weights/{name}").pieces[0].path
    content = bytearray((tmp_path / "bundle" / place).read_bytes())
    content[0] ^= 1
    (tmp_path / "bundle" / place).write_bytes(content)
    with pytest.raises(NimctlError) as caught:
        loaded(tmp_path / "bundle", tmp_path / "cache")
    assert caught.value.id == "bundle-damaged"
    assert snapshots.complete(CachePaths(tmp_path / "cache").repo("org/tiny"), "a" * 40) is None


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    bundles.pack(tmp_path / "bundle")
    shelf = Shelf([tmp_path / "bundle"])
    assert weights.manifest_of(shelf) == bundles.manifest_of()
    document = json.loads((tmp_path / "bundle/weights/nimctl.manifest.json").read_bytes())
    document["files"][0]["path"] = "../../etc/passwd"
    content = json.dumps(document).encode()
    shutil.rmtree(tmp_path / "bundle/weights")
    (tmp_path / "bundle/weights").mkdir()
    (tmp_path / "bundle/weights/nimctl.manifest.json").write_bytes(content)
    with pytest.raises(NimctlError) as caught:
        weights.manifest_of(shelf)
    assert caught.value.id == "bundle-damaged"

"""`hf://` from the cache: what `hf download` left is found and used in place; what is missing is never half served."""

from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.demo import write_checkpoint
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import fetch, open_source
from nimctl.core.fetch.folder import require_no_links_outside

COMMIT = "4ce1a52d7b1b5c1c9f0e1a3c2d4b5a6978695a4b"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as `hf download moonshotai/Kimi-K2.5 --cache-dir` leaves it: blobs, links, refs/main."""
    repo = CachePaths(tmp_path).repo_dir("moonshotai/Kimi-K2.5")
    blobs, snapshot = repo / "blobs", repo / "snapshots" / COMMIT
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_checkpoint(blobs)
    for blob in list(blobs.iterdir()):
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("revision", ["", ":main", f":{COMMIT}"])
def test_a_downloaded_model_is_served_where_it_lies(cache: Path, revision: str) -> None:
    folder = fetch(f"hf://moonshotai/Kimi-K2.5{revision}", cache)
    assert folder == CachePaths(cache).snapshot_dir("moonshotai/Kimi-K2.5", COMMIT)
    assert (folder / "model.safetensors").stat().st_size > 0


def test_a_blob_that_is_cut_short_is_refused(cache: Path) -> None:
    blob = CachePaths(cache).repo_dir("moonshotai/Kimi-K2.5") / "blobs" / "model.safetensors"
    with blob.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(NimctlError) as caught:
        fetch("hf://moonshotai/Kimi-K2.5", cache)
    assert caught.value.id == "weights-incomplete"


@pytest.mark.parametrize("uri", ["hf://moonshotai/Kimi-K3", "hf://moonshotai/Kimi-K2.5:v9"])
def test_what_is_not_there_is_answered_with_the_command_that_brings_it(cache: Path, uri: str) -> None:
    with pytest.raises(NimctlError) as caught:
        open_source(uri, cache)
    assert caught.value.id == "weights-source-unsupported"
    assert f"--cache-dir {CachePaths(cache).hub}" in caught.value.fix


def test_a_snapshot_given_as_a_folder_is_refused_because_its_links_lead_out(cache: Path, tmp_path: Path) -> None:
    snapshot = CachePaths(cache).snapshot_dir("moonshotai/Kimi-K2.5", COMMIT)
    with pytest.raises(NimctlError) as caught:
        require_no_links_outside(snapshot)
    assert caught.value.id == "weights-unreadable" and "cp -rL" in caught.value.fix
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a").touch()
    (plain / "b").symlink_to("a")
    require_no_links_outside(plain)  # a link inside is seen as well as a file


@pytest.mark.parametrize("uri", ["hf://", "hf://name", "hf://../..", "hf://a/b/c", "hf://a/..:..", "hf://a/b:../x"])
def test_a_name_never_leaves_the_cache(cache: Path, uri: str) -> None:
    with pytest.raises(NimctlError) as caught:
        open_source(uri, cache)
    assert caught.value.id == "weights-source-unsupported"

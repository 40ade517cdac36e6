"""What a weights URI means, and the folder source."""

import shutil
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, fetch, open_source
from tests.lib.checkpoints import read_tree, safetensors, write_folder


def failure(uri: str | Path, cache: Path = Path("/nonexistent")) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        fetch(str(uri), cache)
    return caught.value


@pytest.mark.parametrize("scheme", ["hf", "ngc", "modelscope", "ftp"])
def test_downloads_are_refused_with_the_way_around(scheme):
    error = failure(f"{scheme}://user:pass-word@host/model?X-Signature=sig-nature")
    assert error.id == "weights-source-unsupported"
    assert error.exit_code == 6
    assert "folder" in error.fix
    assert f"{scheme}://host/model" in error.message
    assert "pass-word" not in str(error.to_json())
    assert "sig-nature" not in str(error.to_json())


@pytest.mark.parametrize("uri", ["relative/folder", "", "file://host/x", "file://relative", "builtin://other", "/a\0b"])
def test_what_names_no_source_is_refused(uri):
    assert failure(uri).id == "weights-source-unsupported"


@pytest.mark.parametrize("index", [True, False])
def test_a_folder_is_served_where_it_lies_and_the_cache_is_not_touched(tmp_path, index):
    folder = write_folder(tmp_path / "a folder", index=index)
    before, seen = read_tree(folder), list[Progress]()
    assert fetch(str(folder), tmp_path / "cache", on_progress=seen.append) == folder
    assert fetch(f"file://{tmp_path}/a%20folder", tmp_path / "cache") == folder
    assert read_tree(folder) == before
    assert not (tmp_path / "cache").exists()
    total = sum(map(len, before.values()))
    assert seen == [Progress(total, total, phase="done")]


def test_a_folder_of_links_into_the_hugging_face_cache_is_served(tmp_path):
    blobs = write_folder(tmp_path / "models--a--b/blobs")
    snapshot = tmp_path / "models--a--b/snapshots/abc"
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    assert fetch(str(snapshot), tmp_path) == snapshot
    error = failure(snapshot.parent.parent)
    assert error.id == "weights-missing"
    assert str(snapshot) in error.fix


def test_a_folder_source_can_be_copied(tmp_path):
    source = open_source(str(write_folder(tmp_path / "from")), tmp_path)
    (tmp_path / "to").mkdir()
    source.materialise(source.resolve(), tmp_path / "to", lambda _: None)
    assert read_tree(tmp_path / "to") == read_tree(tmp_path / "from")
    assert source.repo == "local/from"


def test_no_folder_an_empty_one_and_a_file_in_its_place_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, cause in {"none": "does not exist", "empty": "it is empty", "file": "not a folder"}.items():
        error = failure(tmp_path / name)
        assert (error.id, error.exit_code) == ("weights-missing", 6)
        assert cause in error.cause


def test_config_without_weights_is_missing_weights(tmp_path):
    folder = write_folder(tmp_path / "x", shards=0, index=False)
    assert failure(folder).id == "weights-missing"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_refused_where_there_is_nothing_else(tmp_path, name):
    folder = write_folder(tmp_path / "x", shards=0, index=False)
    (folder / name).write_bytes(b"\x80\x04")
    error = failure(folder)
    assert error.id == "weights-source-unsupported"
    assert name in error.cause
    (folder / "model.safetensors").write_bytes(safetensors(1))
    assert fetch(str(folder), tmp_path) == folder, "a safetensors checkpoint may have a pickle beside it"


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(tmp_path, index):
    folder = write_folder(tmp_path / "x", shards=4, index=index)
    (folder / "model-00003-of-00004.safetensors").unlink()
    error = failure(folder)
    assert error.id == "weights-incomplete"
    assert "1 of 4" in error.message
    assert "model-00003-of-00004.safetensors" in error.cause


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": []}', "\xff"])
def test_a_broken_index_is_named(tmp_path, index):
    folder = write_folder(tmp_path / "x")
    (folder / "model.safetensors.index.json").write_bytes(index.encode("latin-1"))
    error = failure(folder)
    assert error.id == "weights-incomplete"
    assert "index" in error.message


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "seven bytes": b"1234567",
        "cut": safetensors(64)[:-1],
        "cut in the header": safetensors(64)[:20],
        "longer": safetensors(64) + b"x",
        "absurd header": b"\xff" * 100,
        "no object": (2).to_bytes(8, "little") + b"[]",
        "no offsets": (8).to_bytes(8, "little") + b'{"a": 1}',
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_weight_file_is_named(tmp_path, content):
    folder = write_folder(tmp_path / "x")
    (folder / "model-00002-of-00002.safetensors").write_bytes(content[1])
    error = failure(folder)
    assert error.id == "weights-incomplete"
    assert "model-00002-of-00002.safetensors" in error.message
    assert ("git lfs pull" in error.fix) == (content[0] == "lfs")


def test_a_link_to_nothing_is_named_with_its_target(tmp_path):
    folder = write_folder(tmp_path / "x")
    file = folder / "model-00002-of-00002.safetensors"
    file.unlink()
    file.symlink_to("../../blobs/abc")
    error = failure(folder)
    assert error.id == "weights-incomplete"
    assert "../../blobs/abc" in error.cause
    shutil.rmtree(folder)

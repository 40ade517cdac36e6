"""Manifests: the paths they accept, what they are as JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.fetch.manifest import File, Manifest, from_json, revision_of

FILES = (File("config.json", 2, "sha256:" + "a" * 64), File("sub/weights.safetensors", 10, None))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\\..\\b", "a\0b", ".."]
)
def test_a_path_never_leaves_the_folder(path):
    with pytest.raises(ValueError, match="not a path inside"):
        File(path, 1)


@given(st.lists(st.text(st.sampled_from("./\\\0a")), max_size=6).map("/".join))
def test_an_accepted_path_stays_below_the_folder(path):
    try:
        File(path, 1)
    except ValueError:
        return
    assert not path.startswith("/")
    assert set(path.split("/")).isdisjoint({"", ".", ".."})


def test_json_and_back():
    manifest = Manifest("hf://a/b", "abc", FILES)
    assert manifest.total == 12
    assert manifest.to_json()["schema"] == "nimctl.manifest/1"
    assert from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"source": "x"},
        {"source": "x", "revision": "r", "files": [{"path": "../../x", "size": 1}]},
        {"source": "x", "revision": "r", "files": [{"path": "x", "size": "1"}]},
        {"source": "x", "revision": "r", "files": [], "schema": "nimctl.manifest/2"},
    ],
)
def test_what_is_no_manifest_is_refused(document):
    with pytest.raises(ValueError, match=r"\w"):
        from_json(document)


def test_a_revision_is_the_content_and_nothing_else():
    revision = revision_of(FILES)
    assert len(revision) == 40
    assert revision_of(FILES[::-1]) == revision
    assert revision_of((FILES[0],)) != revision
    assert revision_of((File("config.json", 2, "sha256:" + "b" * 64), FILES[1])) != revision

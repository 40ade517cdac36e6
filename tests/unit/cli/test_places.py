"""Where weights lie in the cache: the same name that the inventory gives, with and without a mirror."""

import pytest

from nimctl.cli import holdings, places
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, open_source
from nimctl.core.fetch.sources import override
from nimctl.core.fetch.upkeep import inventory
from nimctl.launch.runtime import RunHandle

MIRROR = "https://host:8443/a"


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(override.VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("uri", "revision"),
    [("hf://org/name", ""), ("hf://org/name:v1?file=a.json", "v1"), ("hf://org/name@refs/pr/1", "refs/pr/1"),
     ("ngc://org/team/name:1.0", "1.0"), ("https://host:8443/a", ""), ("s3://bucket/a", "")],
)  # fmt: skip
def test_the_revision_that_an_address_names(tmp_path, uri, revision):
    assert list(places.places_of(uri, tmp_path).values()) == [revision]


@pytest.mark.parametrize("uri", ["hf://org/name", "https://host:8443/a/b", "s3://bucket/a/b", "builtin://demo"])
def test_it_is_the_name_that_the_inventory_gives(tmp_path, uri):
    source = open_source(uri, tmp_path, access=Access())
    CachePaths(tmp_path).repo(source.repo, source.part).snapshot("1").mkdir(parents=True)
    [held] = inventory.take(tmp_path).repositories
    assert list(places.places_of(uri, tmp_path)) == [(held.part, held.name)]


def test_with_a_mirror_there_are_two(tmp_path, monkeypatch):
    monkeypatch.setenv(override.VARIABLE, MIRROR)
    found = places.places_of("hf://org/name:v1", tmp_path)
    assert found.pop(("huggingface", "org/name")) == "v1"
    assert list(found.values()) == [""] and "host/8443/a/org/name/v1" in next(iter(found))[1]


def test_a_folder_has_none_and_a_wrong_address_is_refused(tmp_path, monkeypatch):
    assert places.places_of(str(tmp_path), tmp_path) == {}
    with pytest.raises(NimctlError):
        places.places_of("hf://org", tmp_path)
    monkeypatch.setenv(override.VARIABLE, MIRROR)
    assert len(places.places_of("ngc://org", tmp_path)) == 1  # no version: the mirror alone can have that


def test_a_run_keeps_what_came_from_the_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv(override.VARIABLE, MIRROR)
    run = RunHandle("a", "docker", "abc", "ours", "a", "127.0.0.1", 8000, weights="hf://org/name")
    used = holdings._served(run, tmp_path)
    assert used is not None and "huggingface/org/name" in used and len(used) == 2

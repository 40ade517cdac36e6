"""The builder of host snapshots: a change lands where it says, and nowhere else; one that lands nowhere is refused."""

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import to_json
from tests.hosts.bases import BASES
from tests.hosts.save import file_of
from tests.hosts.situation import Situation, changed


def met(**parts):
    return Situation("a host", "l40s", "It was met.", "https://example.com/1", **parts)


def test_without_a_change_it_is_the_base():
    assert met().facts() == BASES["l40s"]


def test_a_change_is_laid_over_what_is_there():
    document = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert changed(document, {"a": {"c": [3]}, "d": {"e": 1}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}}
    assert document == {"a": {"b": 1, "c": [1, 2]}, "d": None}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"all": {"x": 1}}, [{"x": 1}, {"x": 1}, {"x": 1}]),
        ({1: {"x": 1}}, [{"x": 0}, {"x": 1}, {"x": 0}]),
        ({"1-2": {"x": 1}}, [{"x": 0}, {"x": 1}, {"x": 1}]),
        ({"keep": 1}, [{"x": 0}]),
        ([], []),
    ],
)
def test_items_of_a_list_are_changed_by_their_place(change, expected):
    items = [{"x": 0}, {"x": 0}, {"x": 0}]
    assert changed(items, change) == expected
    assert items == [{"x": 0}] * 3


@pytest.mark.parametrize("key", ["3", "2-3", "2-1", "first", ""])
def test_a_place_that_is_not_there_is_refused(key):
    with pytest.raises(ValueError, match="names none of 3 items"):
        changed([1, 2, 3], {key: 0})


@pytest.mark.parametrize("change", [{"dockr": {}}, {"docker": {"knd": "snap"}}, {"docker": {"kind": "wal-mart"}}])
def test_a_change_that_fits_no_fact_is_refused(change):
    with pytest.raises(NimctlError) as caught:
        met(changes=change).facts()
    assert caught.value.id == "facts-invalid"


def test_bases_are_not_changed_by_situations():
    before = to_json(BASES["l40s"])
    met(
        changes={"gpus": {"gpus": {"all": {"error": "lost"}}}, "docker": {"containers": [{"id": "1", "name": "a"}]}}
    ).facts()
    assert to_json(BASES["l40s"]) == before


def test_files_have_names_of_plain_letters():
    assert file_of("well: eight H200 (CUDA error 802)").name == "well-eight-h200-cuda-error-802.json"

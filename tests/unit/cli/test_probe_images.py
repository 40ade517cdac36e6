"""Which image a probe starts, and that it says when that is not the one of a run."""

import pytest

from nimctl.cli import probe
from nimctl.cli.config import load
from nimctl.cli.diagnosis import Diagnosis
from nimctl.cli.target import Target
from nimctl.core.errors import NimctlError
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import Report
from nimctl.images import local_tag
from nimctl.launch.plan import make_plan
from nimctl.render import Output
from tests.unit.doctor.hosts import HEALTHY, NIM_PAGE
from tests.unit.launch.launch_hosts import asked

FOUND = Diagnosis(Target(NIM_PAGE, "test"), load({}), HEALTHY, Needs(NIM_PAGE), Report((), HEALTHY))
PLAN = make_plan(asked("kimi-k2.5-nim", secrets_present=("NGC_API_KEY",)), HEALTHY)
OURS = local_tag("cuda")


class Images:
    """A daemon with these images."""

    def __init__(self, *here):
        self.here = here

    def inspect_image(self, reference):
        return reference if reference in self.here else None


@pytest.fixture
def pulled(monkeypatch):
    names = []
    monkeypatch.setattr(probe.acquire, "pull_image", lambda reference, *_: names.append(reference))
    return names


def choose(*here, named=None):
    return probe._image(FOUND, PLAN, named, Images(*here), Output.choose("doctor", quiet=True))


def test_the_image_of_a_run_is_started_where_it_is_here(pulled):
    assert choose(str(PLAN.image), OURS) == (PLAN.image, "")
    assert pulled == []


def test_ours_stands_in_for_one_that_is_not_here_and_that_is_said(pulled):
    chosen, note = choose(OURS)
    assert (chosen, pulled) == (OURS, [])
    assert note == f"{PLAN.image} is not here; {OURS} stands in for it"


def test_else_that_of_nvidias_page_is_pulled(pulled):
    chosen, note = choose()
    assert (chosen, pulled) == (probe.PAGE_IMAGE, [probe.PAGE_IMAGE])
    assert str(PLAN.image) in note
    assert choose(probe.PAGE_IMAGE)[0] == probe.PAGE_IMAGE
    assert pulled == [probe.PAGE_IMAGE]


def test_an_image_that_is_named_is_the_one(pulled):
    assert choose(str(PLAN.image), OURS, named="mine:1") == ("mine:1", "")
    assert pulled == ["mine:1"]


def test_one_that_cannot_be_had_is_an_error(monkeypatch):
    def refuse(*_):
        raise NimctlError("image-pull-failed", "no", cause="no network", fix="Find one.")

    monkeypatch.setattr(probe.acquire, "pull_image", refuse)
    with pytest.raises(NimctlError):
        choose()

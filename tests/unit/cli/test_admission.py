"""An image that is still in its registry is held against the host by its labels."""

from dataclasses import replace

import pytest

from nimctl.cli.admission import by_labels
from nimctl.core.errors import NimctlError
from nimctl.doctor.model import Needs
from nimctl.render import Output
from tests.unit.doctor.gpu_hosts import hopper
from tests.unit.doctor.hosts import KIMI

ASKS = {"io.nimctl.min-driver": "610", "io.nimctl.min-compute-capability": "7.5"}
NEEDS = Needs(recipe=KIMI)


def test_an_image_for_a_newer_driver_is_refused() -> None:
    with pytest.raises(NimctlError) as raised:
        by_labels(hopper(), NEEDS, Output.choose("run"), force=False)(ASKS)
    assert raised.value.id == "driver-too-old"
    assert "610" in raised.value.message and "580.95.05" in raised.value.message


def test_an_image_that_fits_or_says_nothing_is_admitted() -> None:
    by_labels(hopper(), NEEDS, Output.choose("run"), force=False)({**ASKS, "io.nimctl.min-driver": "580"})
    by_labels(replace(hopper(), image=None), NEEDS, Output.choose("run"), force=False)({})


def test_force_says_what_it_goes_past(capsys: pytest.CaptureFixture[str]) -> None:
    by_labels(hopper(), NEEDS, Output.choose("run"), force=True)(ASKS)
    assert "forced past [driver-too-old]" in "".join(capsys.readouterr())

"""The table of GPU models, and machines by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core import hardware
from nimctl.core.errors import NimctlError
from tests.lib.nvml import profiles


def test_every_figure_has_its_link_and_every_short_name_means_one_model():
    models = hardware.models()
    assert len(models) > 60
    assert all(model.link and model.link.startswith("https://") for model in models if model.memory_mib is not None)
    aliases = [alias.lower() for model in models for alias in model.aliases]
    assert len(aliases) == len(set(aliases))
    assert all(re.fullmatch(r"\d{1,2}\.\d", model.compute_capability) for model in models)
    assert all(tuple(map(int, m.compute_capability.split("."))) >= (7, 5) for m in models)


def test_the_table_agrees_with_the_simulated_gpus():
    for kind in ("H100", "H200", "B200", "GB200", "L40S"):
        simulated, model = profiles.MODELS[kind], hardware.find(kind)
        assert model is not None
        assert (model.name, model.memory_mib) == (simulated.name, simulated.memory)


@pytest.mark.parametrize(
    ("text", "nodes", "gpus", "name"),
    [
        ("8xH200", 1, 8, "NVIDIA H200"),
        ("2x8xH100", 2, 8, "NVIDIA H100 80GB HBM3"),
        ("4xGB200", 1, 4, "NVIDIA GB200"),
        ("h200", 1, 8, "NVIDIA H200"),
        ("1xNVIDIA H200", 1, 1, "NVIDIA H200"),
        ("4xl40s", 1, 4, "NVIDIA L40S"),
    ],
)
def test_machines_by_name(text, nodes, gpus, name):
    machine = hardware.parse_machine(text)
    assert (machine.nodes, machine.gpus, machine.model.name) == (nodes, gpus, name)
    inventory = machine.inventory()
    assert len(inventory.gpus) == gpus
    assert inventory.gpus[0].memory_total == machine.model.memory_mib * 2**20
    assert hardware.parse_machine(machine.name) == machine


@pytest.mark.parametrize(
    ("text", "words"),
    [("8xH2000", "H200"), ("8x", "8xH200"), ("", "8xH200"), ("0xH200", "at least one"), ("3x2x1xH200", "8xH200")],
)
def test_what_names_no_machine_is_refused_with_a_way_out(text, words):
    with pytest.raises(NimctlError) as caught:
        hardware.parse_machine(text)
    assert caught.value.id == "gpu-spec-invalid"
    assert words in caught.value.cause + caught.value.fix


@given(st.text(max_size=40))
def test_any_text_is_a_machine_or_a_clear_error(text):
    try:
        hardware.parse_machine(text)
    except NimctlError as error:
        assert error.id == "gpu-spec-invalid"

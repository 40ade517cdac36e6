"""The model manifest, read by the rules of NVIDIA's operator."""

import pytest
import yaml

from nimctl.core.planning.manifest import as_yaml, manifest_of
from nimctl.core.planning.profiles import find, offered
from nimctl.core.recipes import load, names
from tests.lib.operator_rules import matches, parsed

OURS = [name for name in names() if load(name).runs == "ours"]
CONFIG_MAP = 2**20  # bytes


def text_of(name):
    recipe = load(name)
    return as_yaml(manifest_of(offered(recipe), {f: recipe.on(f).weights for f in recipe.formats}))


@pytest.mark.parametrize("name", OURS)
def test_the_operator_reads_every_profile_of_a_recipe(name):
    text, own = text_of(name), offered(load(name))
    read = parsed(text)
    assert [one["id"] for one in read] == [profile.id for profile in own]
    assert [one["tags"] for one in read] == [dict(profile.tags) for profile in own]
    assert {one["tags"]["model"] for one in read} == {name}
    assert len(text.encode()) < CONFIG_MAP / 4


def test_the_operator_finds_what_was_asked_for():
    profiles, own = parsed(text_of("kimi-k2.5")), offered(load("kimi-k2.5"))
    wanted = find(own, "vllm-int4-tp8-pp1").id
    found = matches(profiles, precision="int4", tensor="8", engine="vllm", quality="latency", lora=False)
    assert found[0] == wanted
    assert find(own, "vllm-int4-tp1-pp1-dp8-ep8").id in matches(profiles, quality="throughput")
    assert matches(profiles) == [profile.id for profile in own]
    for nothing in (
        {"precision": "fp8"},
        {"tensor": "3"},
        {"engine": "tensorrt_llm"},
        {"lora": True},
        {"buildable": True},
    ):
        assert matches(profiles, **nothing) == []


def test_each_profile_names_its_weights():
    for one in parsed(text_of("kimi-k2.5")):
        uri = one["workspace"]["files"]["checkpoint"]["uri"]
        assert (
            uri
            == {"int4": "hf://moonshotai/Kimi-K2.5", "nvfp4": "hf://nvidia/Kimi-K2.5-NVFP4"}[one["tags"]["precision"]]
        )


def test_no_string_reads_as_a_number():
    tricky = {"id": "1e5", "tp": "8", "said": "no", "none": "", "quote": 'a"b: #c\\', "wide": "\u00e4\u4e2d"}
    assert yaml.safe_load(as_yaml({"profiles": [tricky, {"tags": {"a": tricky}}], "empty": []})) == {
        "profiles": [tricky, {"tags": {"a": tricky}}],
        "empty": [],
    }

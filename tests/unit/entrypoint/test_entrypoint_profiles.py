"""`list-model-profiles` and `model-manifest`: the real entrypoint on simulated GPUs and on none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from entrypoint.actions.profiles import system_lines
from entrypoint.engine.model import named_model
from entrypoint.front.documents import metadata, profile_served
from entrypoint.settings import read
from nimctl.core.gpus import Gpu
from nimctl.core.layout import Layout
from nimctl.core.planning.profiles import offered
from nimctl.core.recipes import load
from tests.lib.checkpoints import write_folder
from tests.lib.lab import double_environment
from tests.unit.entrypoint.service import needs_nginx, service

ROOT = Path(__file__).parents[3]
CLASSES = ("Compatible with system and runnable", "Compatible with system but low memory", "Incompatible with system")


@pytest.fixture
def on(tmp_path):
    """Runs an action on a simulated host, with no network, no front and no writable cache."""

    def run(machine, *arguments, code=0, **environ):
        simulated = double_environment(machine, tmp_path) if machine else {}
        needed = {name: simulated[name] for name in ("LD_LIBRARY_PATH", "NVML_DOUBLE_JSON") if name in simulated}
        ran = subprocess.run(
            [sys.executable, "-m", "entrypoint", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NIM_CACHE_PATH": "/no/such/cache", **needed}
            | {"NIMCTL_ENGINE_DEVICE": "cuda"}
            | environ,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran

    return run


def listed(text):
    """Names by class, read as scripts for NIM read them."""
    found, section = {}, ""
    for line in text.splitlines():
        if heading := re.match(r"- ([^:]+):", line):
            section = heading[1]
            found.setdefault(section, {})
        elif one := re.fullmatch(r" +- ([0-9a-f]{64}) \(([^)]+)\)(.*)", line):
            found[section][one[2]] = (one[1], one[3].strip())
    return found


def test_the_profiles_of_kimi_on_eight_h200(on):
    out = on("8xH200", "list-model-profiles", NIM_RECIPE="kimi-k2.5").stdout
    found = listed(out)
    assert [name for name in found if name in CLASSES] == list(CLASSES)
    assert re.fullmatch(r"\[requires >=\d+ GB/gpu\]", found[CLASSES[0]]["vllm-int4-tp8-pp1"][1])
    assert "it needs 16 GPUs, 8 are given" in found[CLASSES[2]]["vllm-int4-tp16-pp1"][1]
    assert "vllm-nvfp4-tp8-pp1" in found[CLASSES[0]], "four bits run on Hopper, too"
    ids = {one[0] for section in found.values() for one in section.values()}
    assert ids == {profile.id for profile in offered(load("kimi-k2.5"))}
    assert out.startswith("SYSTEM INFO\n- Free GPUs:\n  -  (0) NVIDIA H200 [current utilization: ")
    assert out.count("NVIDIA H200") == 8


def test_a_length_that_would_fit_is_told_and_does(on):
    out = on("2xH100", "list-model-profiles", NIM_RECIPE="llama-3.1-70b").stdout
    note = listed(out)[CLASSES[1]]["vllm-bf16-tp2-pp1"][1]
    told = re.fullmatch(r"\[requires >=(\d+) GB/gpu, try --max-model-len=(\d+) to reduce to >=(\d+) GB/gpu\]", note)
    assert told, note
    assert int(told[1]) > int(told[3])
    again = on("2xH100", "list-model-profiles", NIM_RECIPE="llama-3.1-70b", NIM_MAX_MODEL_LEN=told[2]).stdout
    assert "vllm-bf16-tp2-pp1" in listed(again)[CLASSES[0]]


def test_without_a_gpu_everything_is_incompatible(on):
    out = on(None, "list-model-profiles", NIM_RECIPE="kimi-k2.5").stdout
    assert "- Free GPUs: <None>\n" in out
    assert "- Compatible with system and runnable: <None>\n" in out
    assert "- Compatible with system but low memory: <None>\n" in out
    assert "it needs 8 GPUs, 0 are given" in listed(out)[CLASSES[2]]["vllm-int4-tp8-pp1"][1]


def test_the_demo_runs_on_the_cpu(on):
    out = on(None, "list-model-profiles", NIM_RECIPE="demo", NIMCTL_ENGINE_DEVICE="cpu").stdout
    assert [*listed(out)[CLASSES[0]]] == ["vllm-bf16-tp1-pp1"]


def test_a_profile_that_was_chosen_does_not_shorten_the_list(on):
    out = on("8xH200", "list-model-profiles", NIM_RECIPE="kimi-k2.5", NIM_MODEL_PROFILE="nonsense").stdout
    assert "vllm-int4-tp8-pp1" in listed(out)[CLASSES[0]]


def test_a_folder_of_an_unknown_model_has_a_profile_of_which_nobody_knows_the_memory(on, tmp_path):
    folder = write_folder(tmp_path / "org-model")
    out = on("1xH200", "list-model-profiles", NIM_MODEL_PATH=str(folder)).stdout
    ((name, one),) = listed(out)["Compatible with system, memory not known"].items()
    assert name == "vllm-tp1-pp1"
    assert one[1]


def test_a_model_that_is_not_at_hand_is_asked_of_nobody(on):
    out = on("1xH200", "list-model-profiles", NIM_MODEL_PATH="hf://org/name", HF_ENDPOINT="http://127.0.0.1:9").stdout
    assert "(vllm-tp1-pp1)" in out


def test_help_and_wrong_options(on):
    assert on(None, "list-model-profiles", "-h").stdout.startswith("usage: list-model-profiles [-h]\n")
    assert on(None, "model-manifest", "--help").stdout.startswith("usage: model-manifest [-h]\n")
    ran = on(None, "list-model-profiles", "--all", code=2, NIM_RECIPE="demo")
    assert "error[usage]" in ran.stderr
    assert json.loads(ran.stdout)["error"]["id"] == "usage"


def test_where_no_model_is_named_the_list_is_that_of_the_images_own(on):
    named = on(None, "list-model-profiles", NIMCTL_ENGINE_DEVICE="cpu", NIM_RECIPE="demo").stdout
    assert on(None, "list-model-profiles", NIMCTL_ENGINE_DEVICE="cpu").stdout == named


@pytest.mark.parametrize(("device", "recipe"), [("cuda", "kimi-k2.5"), ("cpu", "demo")])
def test_an_image_has_the_manifest_of_its_own_model(on, device, recipe):
    document = yaml.safe_load(on(None, "model-manifest", NIMCTL_ENGINE_DEVICE=device).stdout)
    assert [one["id"] for one in document["profiles"]] == [profile.id for profile in offered(load(recipe))]
    named = on("8xH200", "model-manifest", NIMCTL_ENGINE_DEVICE=device, NIM_RECIPE=recipe).stdout
    assert yaml.safe_load(named) == document


def test_a_manifest_holds_no_key_and_warnings_stay_out_of_it(on):
    ran = on(None, "model-manifest", NIM_MODEL_PATH="hf://me:canary-key@org/name", NIM_UNHEARD_OF="1")
    (one,) = yaml.safe_load(ran.stdout)["profiles"]
    assert one["workspace"]["files"]["checkpoint"]["uri"] == "hf://org/name"
    assert "canary" not in ran.stdout + ran.stderr
    assert "NIM_UNHEARD_OF is unknown and does nothing" in ran.stderr


def test_gpus_that_others_use_are_told_apart():
    gpus = [
        Gpu(0, name="A", memory_total=100, memory_free=99),
        Gpu(1, name="B", memory_total=100, memory_free=40),
        Gpu(2),
    ]
    assert system_lines(gpus) == [
        "SYSTEM INFO",
        "- Free GPUs:",
        "  -  (0) A [current utilization: 1%]",
        "  -  (2) unknown GPU [current utilization: unknown]",
        "- Non-free GPUs:",
        "  -  (1) B [current utilization: 60%]",
    ]


@pytest.mark.parametrize(
    "layout", [Layout(8, 1, (), (), ""), Layout(8, 2, (), (), ""), Layout(1, 1, (), (), "", 8, 1, expert=True)]
)
def test_what_is_served_has_the_id_that_is_listed(layout):
    model = named_model(read({"NIM_RECIPE": "kimi-k2.5", "NIM_MODEL_PATH": "/a/copy/of/it"}))
    served = profile_served(model, layout)
    assert served in offered(load("kimi-k2.5"))
    document = metadata(model, layout, "1", {}, 8)
    assert (document["selectedModelProfile"], document["selectedModelProfileId"]) == (served.name, served.id)


@needs_nginx
def test_a_start_takes_the_profile_that_was_asked_for():
    one_of = {profile.name: profile for profile in offered(load("demo"))}
    with service(NIM_MODEL_PROFILE=one_of["vllm-bf16-tp2-pp1"].id) as one:
        one.start().wait_ready()
        argv = one.engine()["argv"]
        assert argv[argv.index("--tensor-parallel-size") + 1] == "2"
        assert one.get("/v1/metadata").json["selectedModelProfileId"] == one_of["vllm-bf16-tp2-pp1"].id
        assert f"Selected profile: {one_of['vllm-bf16-tp2-pp1'].id} (vllm-bf16-tp2-pp1)" in one.out


def test_a_start_with_an_unknown_profile_ends():
    with service(arguments=("--dry-run",), NIM_MODEL_PROFILE="vllm-bf16-tp3-pp1") as one:
        one.start()
        assert one.code() == 2
        assert "error[profile-unknown]" in one.err

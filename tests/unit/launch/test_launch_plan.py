"""Plans as data: who decides what, what is refused, and that no key ever gets into one."""

import json
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core import recipes
from nimctl.core.errors import NimctlError
from nimctl.core.recipes import Recipe
from nimctl.core.secret import Secret
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.model import LaunchPlan, RunOptions
from nimctl.launch.plan import docker_run_line, explain, make_plan, process_command, process_line, to_json
from tests.unit.launch.launch_hosts import IMAGE, asked, gpus, host, note_ids, plan

CANARY = "nvapi-CANARYcanaryCANARY0123456789"
KIMI = "kimi-k2.5"


def refused(error_id: str, recipe: str | None = "demo", on: object = None, **changes: object) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        make_plan(asked(recipe, **changes), on or host())  # type: ignore[arg-type]
    assert caught.value.id == error_id, caught.value
    return caught.value


# GPUs


def test_nobody_asked_and_the_host_has_gpus_uses_them_all() -> None:
    made = plan("demo", host(*gpus(2), runtime=True))
    assert made.gpu.devices == ("all",)
    assert made.layout is not None and made.layout.name == "tp2-pp1"
    assert made.layout_gpus == 2


def test_a_default_that_the_command_line_filled_in_counts_as_not_asked() -> None:
    made = plan("demo", gpus="all", origins={"gpus": "default"})
    assert made.gpu.mode == "none"


def test_demo_falls_back_to_the_cpu_and_says_so() -> None:
    made = plan("demo")
    assert (made.gpu.mode, made.layout_gpus) == ("none", 0)
    assert "cpu-no-gpu" in note_ids(made)
    assert ("NIM_GPUS", "none") in [(e.name, e.value) for e in made.env]


def test_gpus_that_were_asked_for_are_never_replaced_by_the_cpu() -> None:
    error = refused("gpu-missing", "demo", gpus="all", origins={"gpus": "--gpus"})
    assert error.exit_code == 3
    assert "demo" in error.fix


def test_a_model_for_gpus_is_refused_without_gpu_and_points_to_the_demo() -> None:
    assert "demo" in refused("gpu-missing", KIMI).fix


def test_the_cpu_on_request_is_allowed_and_noted() -> None:
    assert "cpu-on-request" in note_ids(plan(KIMI, gpus="none"))


def test_asking_for_gpus_that_do_not_exist() -> None:
    error = refused("gpu-spec-invalid", "demo", host(*gpus(2), runtime=True), gpus="9")
    assert error.exit_code == 2
    assert "2" in error.cause


def test_mixed_gpus_are_refused_with_a_selection_that_works() -> None:
    mixed = (*gpus(1), *gpus(3, "NVIDIA H100 80GB HBM3")[1:])
    error = refused("gpus-mixed", "demo", host(*mixed, runtime=True))
    assert "device=1,2" in error.fix
    assert plan("demo", host(*mixed, runtime=True), gpus="device=1,2").gpu.devices == ("1", "2")


def test_a_model_that_does_not_fit_is_refused() -> None:
    assert refused("no-layout", KIMI, host(*gpus(8, memory=24 * 2**30), runtime=True)).exit_code == 7


def test_a_subset_is_named_by_index_also_when_asked_by_uuid() -> None:
    assert plan("demo", host(*gpus(4), hook=True), gpus="GPU-00000003,GPU-00000000").gpu.devices == ("3", "0")


def test_a_gpu_that_fell_off_the_bus_is_left_out_of_all() -> None:
    one, *rest = gpus(3)
    made = plan("demo", host(replace(one, error="lost: GPU is lost"), *rest, runtime=True))
    assert made.gpu.devices == ("1", "2")
    assert "gpu-left-out" in note_ids(made)


def test_the_size_that_the_engine_is_told_is_the_size_that_is_planned() -> None:
    eight = host(*gpus(8), runtime=True)
    for options in (
        {"engine_args": ("--tensor-parallel-size", "4")},
        {"engine_args": ("--tensor-parallel-size=4",)},
        {"engine_args": ("-tp", "4")},
        {"env": (("NIM_TENSOR_PARALLEL_SIZE", "4"),)},
        {"env": (("NIM_PASSTHROUGH_ARGS", "--tensor_parallel_size '4'"), ("NIM_TENSOR_PARALLEL_SIZE", "8"))},
    ):
        made = plan("demo", eight, **options)
        assert made.layout is not None and made.layout.tensor_parallel_size == 4
        assert "gpus-unused" in note_ids(made)
    refused("usage", "demo", eight, engine_args=("--tensor-parallel-size", "four"))
    refused("no-layout", "demo", engine_args=("-tp", "3"))
    refused("usage", "demo", eight, env=(("NIM_PASSTHROUGH_ARGS", "-tp '4"),))


def test_the_weights_of_a_recipe_say_nothing_about_another_checkpoint() -> None:
    small = host(*gpus(8, memory=24 * 2**30), runtime=True)
    assert plan(KIMI, small, model_path="/data/smaller").layout is not None


# How docker hands them over


def test_the_order_of_preference_is_runtime_hook_cdi() -> None:
    cdi = ("0", "1", "all")
    assert plan("demo", host(*gpus(2), runtime=True, hook=True, cdi=cdi)).gpu.mode == "runtime"
    assert plan("demo", host(*gpus(2), hook=True, cdi=cdi)).gpu.mode == "gpus"
    assert plan("demo", host(*gpus(2), cdi=cdi)).gpu.mode == "cdi"


@pytest.mark.parametrize("on", [host(*gpus(2)), host(*gpus(2), cdi=("all",), cdi_on=False)])
def test_no_way_to_hand_gpus_over(on: object) -> None:
    assert "nvidia-ctk" in refused("gpu-runtime-missing", "demo", on).fix


def test_a_stale_cdi_specification_is_named() -> None:
    error = refused("gpu-runtime-missing", "demo", host(*gpus(4), cdi=("0", "1")))
    assert "stale" in error.cause and "/etc/cdi/nvidia.yaml" in error.cause


# Kinds


def test_ours_is_fully_confined() -> None:
    made = plan("demo")
    assert made.security.cap_drop == ("ALL",)
    assert made.security.no_new_privileges and made.security.read_only
    assert "exec" in made.security.tmpfs["/tmp"] and "size=" in made.security.tmpfs["/tmp"]
    assert made.user == "1000:0"
    assert made.port.host_ip == "127.0.0.1"


def test_root_does_not_make_our_container_root() -> None:
    made = plan("demo", uid=0)
    assert made.user == "1000:0"
    assert "not-root" in note_ids(made)


def test_nvidias_image_keeps_its_user_for_root_and_explains_each_addition() -> None:
    made = plan("kimi-k2.5-turbo", host(*gpus(8), runtime=True), uid=0)
    assert made.user is None
    assert made.security.cap_drop == () and not made.security.read_only
    ids = note_ids(made)
    for wanted in (
        "loopback",
        "shm",
        "no-new-privileges",
        "labels",
        "stop-timeout",
        "key-in-environment",
        "key-missing",
    ):
        assert wanted in ids, wanted


def test_a_look_at_nvidias_plan_needs_no_gpu_and_says_that_a_start_would() -> None:
    made = plan("kimi-k2.5-turbo", assume_gpus=True)
    assert "--gpus all" in docker_run_line(made)
    assert "gpu-missing" in note_ids(made)
    refused("gpu-missing", "kimi-k2.5-turbo")
    refused("gpu-missing", KIMI, assume_gpus=True)
    assert plan("kimi-k2.5-turbo", assume_gpus=True, gpus="none").gpu.mode == "none"


def test_an_image_without_recipe_runs_like_nvidias() -> None:
    made = plan(None, host(*gpus(1), runtime=True), image="nvcr.io/nim/other/model:1")
    assert (made.kind, made.image, made.layout) == ("nim", "nvcr.io/nim/other/model:1", None)


def test_no_image_at_all() -> None:
    refused("image-not-found", "demo", image=None)


def test_nvidias_image_is_no_process() -> None:
    refused("usage", "kimi-k2.5-nim", host(*gpus(8)), runtime="process")


def test_a_folder_is_mounted_read_only_and_named_to_the_server() -> None:
    local = Recipe("mine", "mine", "ours", ("mine",), weights="/data/mine")
    made = make_plan(replace(asked("demo", name="mine", gpus="none"), recipe=local), host())
    assert [(m.source, m.target, m.read_only) for m in made.mounts] == [
        ("/data/nim", "/opt/nim/.cache", False),
        ("/data/mine", "/opt/nim/model", True),
    ]
    env = {e.name: e.value for e in made.env}
    assert env["NIM_MODEL_PATH"] == "/opt/nim/model"
    assert env["NIM_SERVED_MODEL_NAME"] == "mine"
    assert "NIM_RECIPE" not in env


def test_published_beyond_this_host_is_noted() -> None:
    assert "published-widely" in note_ids(plan("demo", host="0.0.0.0"))
    assert "published-widely" not in note_ids(plan("demo", host="localhost"))


def test_a_longer_drain_gets_a_longer_stop() -> None:
    assert plan("demo").stop_timeout == 45
    assert plan("demo", env=(("NIM_DRAIN_SECONDS", "120"),)).stop_timeout == 135


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../up"},
        {"name": "x"},
        {"port": 0},
        {"port": 70000},
        {"host": "my-host"},
        {"env": (("A-B", "1"),)},
        {"cache": Path("relative")},
        {"cache": Path("/data:nim")},
        {"model_path": "relative"},
    ],
)
def test_what_cannot_work_is_a_usage_error(changes: dict[str, object]) -> None:
    assert refused("usage", "demo", **changes).exit_code == 2


# Origins


def test_every_setting_says_where_it_comes_from() -> None:
    made = plan("demo", port=9000, origins={"port": "--port", "cache": "NIMCTL_CACHE", "host": "./nimctl.yaml"})
    rows = {what: (value, origin) for what, value, origin, _ in explain(made)}
    assert rows["port"] == ("9000", "--port")
    assert rows["cache"] == ("/data/nim", "NIMCTL_CACHE")
    assert rows["host"][1] == "./nimctl.yaml"
    assert rows["runtime"] == ("docker", "default")
    assert rows["layout"] == ("tp1-pp1", "derived")
    assert all(why for *_, why in explain(made))


def test_equal_wishes_on_equal_hosts_give_equal_plans() -> None:
    assert plan("demo") == plan("demo")
    assert plan("demo") != plan("demo", port=8001)


# The process runtime


def test_a_process_is_told_what_a_container_gets_by_mounts() -> None:
    made = plan("demo", host(*gpus(4)), runtime="process", gpus="device=1,2", image=None)
    argv, env = process_command(made, Path("/state/runs/demo"))
    assert argv[1:3] == ("-m", "entrypoint")
    assert env == {
        "NIM_RECIPE": "demo",
        "NIM_CACHE_PATH": "/data/nim",
        "NIM_SERVER_HOST": "127.0.0.1",
        "NIM_SERVER_PORT": "8000",
        "NIM_GPUS": "1,2",
        "NIMCTL_STATE_DIR": "/state/runs/demo",
    }
    assert made.mounts == () and made.image is None
    assert process_line(made).startswith("env \\\n  NIM_RECIPE=demo")


# Keys


def with_keys() -> list[tuple[LaunchPlan, dict[str, Secret]]]:
    eight = host(*gpus(8), runtime=True)
    keys = {"HF_TOKEN": Secret(CANARY), "NGC_API_KEY": Secret(CANARY)}
    return [
        (plan(KIMI, eight, secrets_present=tuple(keys), env=(("MY_PASSWORD", CANARY), ("OTHER", CANARY))), keys),
        (plan("kimi-k2.5-nim", eight, secrets_present=tuple(keys)), keys),
    ]


def test_no_key_in_anything_that_is_shown() -> None:
    for made, _ in with_keys():
        shown = [
            repr(made),
            str(made.notes),
            docker_run_line(made),
            process_line(made),
            json.dumps(to_json(made)),
            str(explain(made)),
        ]
        assert not [text for text in shown if CANARY in text]


def test_our_image_gets_its_key_as_a_file_and_only_the_one_it_needs() -> None:
    made, keys = with_keys()[0]
    assert made.secret_names == ("HF_TOKEN",)
    assert "source=/run/user/1000/nimctl/kimi-k2.5/HF_TOKEN,target=/run/secrets/HF_TOKEN" in docker_run_line(made)
    body = container_body(made, keys)
    assert "HF_TOKEN_FILE=/run/secrets/HF_TOKEN" in body["Env"]
    assert f"HF_TOKEN={CANARY}" not in body["Env"]


def test_nvidias_image_gets_its_key_from_the_callers_environment_by_name() -> None:
    made, keys = with_keys()[1]
    assert "-e NGC_API_KEY \\" in docker_run_line(made)
    assert f"NGC_API_KEY={CANARY}" in container_body(made, keys)["Env"]


def test_demo_gets_no_key_whatever_the_caller_holds() -> None:
    assert plan("demo", secrets_present=("NGC_API_KEY", "HF_TOKEN")).secrets == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"env": (("NGC_API_KEY", CANARY),)},
        {"engine_args": ("--api-key", "abc")},
        {"engine_args": ("--hf_token=abc",)},
        {"engine_args": (f"--download-dir={CANARY}",)},
    ],
)
def test_a_key_on_the_command_line_is_refused_without_repeating_it(changes: dict[str, object]) -> None:
    error = refused("usage", "demo", **changes)
    assert CANARY not in f"{error} {error.cause} {error.fix}"


# Whatever is asked

words = st.text(string.ascii_letters + string.digits + "-_=./:,\"' ", max_size=12)
wishes = st.builds(
    RunOptions,
    recipe=st.sampled_from([None, *(recipes.load(name) for name in recipes.names())]),
    name=st.one_of(st.just("run-1"), words),
    cache=st.sampled_from([Path("/data/nim"), Path("relative"), Path("/a:b"), Path("/")]),
    uid=st.integers(0, 70000),
    image=st.sampled_from([None, IMAGE]),
    gpus=st.one_of(
        st.none(), st.sampled_from(["all", "none", "0", "1", "2", "0,1", "device=1", "9", "", "GPU-x"]), words
    ),
    host=st.one_of(st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "localhost"]), words),
    port=st.integers(-1, 70000),
    runtime=st.sampled_from(["docker", "process"]),
    env=st.lists(st.tuples(words, words), max_size=3).map(tuple),
    engine_args=st.lists(st.one_of(words, st.sampled_from(["-tp", "--tensor-parallel-size"])), max_size=4).map(tuple),
    secrets_present=st.sampled_from([(), ("NGC_API_KEY",), ("HF_TOKEN", "NGC_API_KEY")]),
    model_path=st.one_of(st.none(), st.sampled_from(["/data/model", "hf://a/b", "x"]), words),
    origins=st.sampled_from([{}, {"gpus": "default"}, {"gpus": "--gpus", "port": "--port"}]),
)
hosts = st.builds(
    lambda count, runtime, hook, cdi, on: host(*gpus(count), runtime=runtime, hook=hook, cdi=cdi, cdi_on=on),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, (), ("all",), ("0", "1")]),
    st.booleans(),
)


@given(wishes, hosts)
def test_whatever_is_asked_gives_a_plan_or_one_of_our_errors(options: RunOptions, on: object) -> None:
    try:
        made = make_plan(options, on)  # type: ignore[arg-type]
    except NimctlError:
        return
    if made.runtime == "docker":
        assert docker_run_line(made)
        container_body(made, {})
    assert json.dumps(to_json(made))
    assert explain(made)

"""The engine's command line and environment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.engine import invocation
from entrypoint.engine.model import Model
from entrypoint.settings import read
from entrypoint.state import State
from nimctl.core.engine_options import parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.layout import CPU_LAYOUT, Layout
from nimctl.core.parallel import Sizes
from nimctl.core.planning.deciding import asked_of
from nimctl.core.recipes import Engine, load

STATE = State(Path("/run/x"))
DEMO = Model(load("demo"), "builtin://demo", ("a", "b"))


def command(environ=None, arguments=(), layout=CPU_LAYOUT, model=DEMO):
    settings = read({"NIM_RECIPE": "demo", **(environ or {})}, arguments)
    return invocation.build_command(settings, model, "cpu", layout, snapshot="/weights", state=STATE)


def option(built, name):
    return [o.values for o in parse_options(built.argv[built.argv.index("--uds") :]) if o.name == name]


def sizes(words=(), **environ):
    return asked_of(DEMO.recipe, invocation.request(read({"NIM_RECIPE": "demo", **environ}, words))).sizes


def test_the_command_of_the_demo():
    built = command()
    assert built.argv[built.argv.index("serve") + 1] == "/weights"
    assert option(built, "uds") == [("/run/x/engine.sock",)]
    assert option(built, "served-model-name") == [("a", "b")]
    assert option(built, "limit-mm-per-prompt") == [('{"vision_chunk":4}',)]
    assert option(built, "enforce-eager") == [()]
    assert option(built, "middleware") == [("entrypoint.api.RequestRules",)]
    assert option(built, "shutdown-timeout") == [("30",)]


def test_later_levels_replace_and_do_not_repeat():
    environ = {"NIM_MAX_MODEL_LEN": "4096", "NIM_PASSTHROUGH_ARGS": "--max-model-len 2048 --max_num_seqs=3"}
    built = command(environ, ["--max-num-seqs", "5"])
    assert option(built, "max-model-len") == [("2048",)]
    assert option(built, "max-num-seqs") == [("5",)], "underscores, equals sign and level do not matter"


def test_no_contradicts():
    assert option(command(arguments=["--no-enforce-eager"]), "enforce-eager") == []


def test_short_names_are_the_long_ones():
    assert option(command(arguments=["-tp", "2"]), "tensor-parallel-size") == [("2",)]
    assert sizes(["-tp", "2"]) == Sizes(2)
    assert sizes(NIM_TENSOR_PARALLEL_SIZE="4") == Sizes(4)
    assert sizes(NIM_PIPELINE_PARALLEL_SIZE="2") == Sizes(None, 2)


@pytest.mark.parametrize("words", [["-tp", "two"], ["-tp"], ["-tp", "0"]])
def test_a_size_that_is_none(words):
    with pytest.raises(NimctlError, match="usage"):
        sizes(words)


def test_names_that_the_user_passes_are_the_ones_we_wait_for():
    assert command(arguments=["--served-model-name", "mine"]).served_names == ("mine",)


def test_middleware_adds_up():
    built = command(arguments=["--middleware", "their.Own"])
    assert option(built, "middleware") == [("entrypoint.api.RequestRules",), ("their.Own",)]


@pytest.mark.parametrize("words", [["--port", "1"], ["--uds=/x"], ["--host", "::"], ["--api-key", "k"]])
def test_what_belongs_to_the_front_is_refused(words):
    with pytest.raises(NimctlError) as caught:
        command(arguments=words)
    assert caught.value.id == "usage"


def test_values_may_look_like_numbers_and_documents():
    parsed = parse_options(["--seed", "-1", "--config", '{"a": -2}', "-O3"])
    assert [(o.name, o.values) for o in parsed] == [("seed", ("-1",)), ("config", ('{"a": -2}',)), ("O3", ())]


def test_a_value_without_option():
    with pytest.raises(NimctlError, match="belongs to no option"):
        parse_options(["8192"])


def test_media_domains():
    built = command({"NIM_ALLOWED_MEDIA_DOMAINS": "a.example, b.example"})
    assert option(built, "allowed-media-domains") == [("a.example", "b.example")]
    assert option(command(), "allowed-media-domains") == []


def environment(inherited=None, layout=CPU_LAYOUT, device="cpu", visible=(), **environ):
    settings = read({"NIM_RECIPE": "demo", **environ})
    private = Path("/cache/engine/0/k")
    return invocation.build_environment(
        inherited or {}, settings, DEMO, device, layout, visible=visible, private=private
    )


@pytest.mark.parametrize(
    "name",
    [
        "NGC_API_KEY", "NGC_CLI_API_KEY", "NGC_API_KEY_FILE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD",
        "MY_SECRET_THING", "OPENAI_API_KEY", "VLLM_API_KEY", "github_token",
        "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "HF_ENDPOINT", "NIM_REPOSITORY_OVERRIDE",
    ],
)  # fmt: skip
def test_credentials_stay_out(name):
    assert name not in environment({name: "x"})


@pytest.mark.parametrize(
    "name", ["PATH", "LANG", "https_proxy", "NCCL_DEBUG", "TOKENIZERS_PARALLELISM", "VLLM_MAX_TOTAL_TOKENS"]
)
def test_the_rest_comes_through(name):
    assert environment({name: "x"})[name] == "x"


def test_every_cache_is_in_the_private_folder():
    env = environment({"HOME": "/root"})
    names = [n for n in env if n.endswith(("_CACHE_DIR", "_CACHE_ROOT", "_CACHE_PATH", "_BASE", "_EXTENSIONS_DIR"))]
    assert len(names) >= 8
    assert all(env[n].startswith("/cache/engine/0/k/") for n in [*names, "HOME"])


def test_the_environment_is_the_same_at_every_start():
    assert environment({"A": "1"}) == environment({"A": "1"})
    assert environment()["VLLM_CPU_KVCACHE_SPACE"] == "1", "the recipe's"
    assert environment()["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def memory_for_the_context(device="cpu", ranks=1, arguments=(), inherited=None):
    model = replace(DEMO, recipe=replace(DEMO.recipe, engine=Engine()))
    layout = Layout(ranks, 1, tuple(range(ranks)), (), "because")
    settings = read({"NIM_RECIPE": "demo"}, arguments)
    env = invocation.build_environment(
        inherited or {}, settings, model, device, layout, visible=range(ranks), private=Path("/p")
    )
    return env.get("VLLM_CPU_KVCACHE_SPACE")


def test_a_model_on_the_cpu_does_not_ask_for_the_whole_machine():
    assert memory_for_the_context() == "4"
    assert memory_for_the_context(ranks=2) == "2", "of all ranks together"
    assert memory_for_the_context(ranks=8) == "1"
    assert memory_for_the_context(device="cuda") is None


@pytest.mark.parametrize("words", [["--gpu-memory-utilization", "0.3"], ["--kv_cache_memory_bytes=2G"]])
def test_memory_that_was_asked_for_counts_on_the_cpu(words):
    assert memory_for_the_context(arguments=words) is None, "the variable would win over the argument"
    assert memory_for_the_context(inherited={"VLLM_CPU_KVCACHE_SPACE": "9"}) == "9"


def visible_to_the_engine(used, unused=(), inherited=None, device="cuda"):
    given = {} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited, "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    layout = Layout(len(used), 1, used, unused, "because")
    env = environment(given, layout=layout, device=device, visible=range(4))
    if device == "cuda":
        assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "CUDA must count as NVML does"
    return env.get("CUDA_VISIBLE_DEVICES")


def test_unused_gpus_are_hidden_from_the_engine():
    assert visible_to_the_engine((0, 1), (2, 3)) == "0,1"


def test_gpus_that_were_not_asked_for_are_hidden_from_the_engine():
    assert visible_to_the_engine((2, 3)) == "2,3"
    assert visible_to_the_engine((3, 0, 1, 2)) == "3,0,1,2"


def test_all_gpus_need_no_variable():
    assert visible_to_the_engine((0, 1, 2, 3)) is None


def test_an_inherited_choice_of_gpus_does_not_survive():
    assert visible_to_the_engine((0, 1, 2, 3), inherited="1") == "0,1,2,3"
    assert visible_to_the_engine((2, 3), inherited="0,1") == "2,3"


def test_the_engine_finds_our_middleware():
    assert invocation.with_own_package({}, Path("/src"))["PYTHONPATH"] == "/src"
    assert invocation.with_own_package({"PYTHONPATH": "/o"}, Path("/src"))["PYTHONPATH"] == "/src:/o"
    assert "PYTHONPATH" not in invocation.with_own_package({}, Path("/venv/lib/python3.11/site-packages"))


def test_the_cache_key_is_a_folder_name():
    key = invocation.cache_key("cuda", "0.32.0", "NVIDIA H100 80GB HBM3", "580.95.05")
    assert key == "vllm-0.32.0-cuda-NVIDIA_H100_80GB_HBM3-580.95.05"
    assert "/" not in invocation.cache_key("cuda", None, "../../x", None)


def test_the_limit_is_only_given_to_models_that_see():
    blind = replace(DEMO, recipe=replace(DEMO.recipe, config=None))
    assert option(command(model=blind), "limit-mm-per-prompt") == []
    assert json.loads(option(command({"NIM_MAX_IMAGES_PER_PROMPT": "9"}), "limit-mm-per-prompt")[0][0]) == {
        "vision_chunk": 9
    }


def test_a_layout_is_passed_as_a_whole():
    wide = Layout(1, 2, (), (), "", 8, 1, expert=True)
    built = command(layout=wide)
    for name, value in {"tensor-parallel-size": "1", "pipeline-parallel-size": "2", "data-parallel-size": "8"}.items():
        assert option(built, name) == [(value,)]
    assert option(built, "enable-expert-parallel") == [()]
    assert option(command(layout=Layout(8, 1, (), (), "", 1, 8)), "decode-context-parallel-size") == [("8",)]


def test_replicas_that_the_user_spreads_over_machines_are_left_as_they_are():
    built = command(layout=Layout(1, 1, (), (), "", 8), arguments=["-dp", "16", "-dpl", "8"])
    assert option(built, "data-parallel-size") == [("16",)]


def test_a_smaller_share_of_memory_is_for_gpus_and_the_users_own_word_wins():
    tight = Layout(1, 1, (0,), (), "", arguments={"gpu-memory-utilization": "0.80"})
    assert option(command(layout=tight), "gpu-memory-utilization") == [], "an engine for the CPU"
    settings = read({"NIM_RECIPE": "demo"}, [])
    built = invocation.build_command(settings, DEMO, "cuda", tight, snapshot="/weights", state=STATE)
    assert option(built, "gpu-memory-utilization") == [("0.80",)]


def test_every_kind_of_medium_is_limited():
    seen = load("qwen3-vl-8b")
    model = Model(seen, seen.weights, ("q",))
    limits = json.loads(option(command(model=model), "limit-mm-per-prompt")[0][0])
    assert limits == {**seen.limits, "image": 4} and "video" in limits


def test_a_layout_without_whole_experts_goes_before_a_recipe_with_them():
    model = replace(DEMO, recipe=load("deepseek-v3"))
    settings = read({"NIM_RECIPE": "deepseek-v3"})
    argv = invocation.build_command(settings, model, "cuda", Layout(8, 1, (), (), ""), snapshot="/w", state=STATE).argv
    assert "--no-enable-expert-parallel" in argv
    assert "--enable-expert-parallel" not in argv


def test_a_slice_is_named_to_the_engine():
    sliced = Layout(1, 1, (0,), (), "", slice="MIG-1234")
    settings = read({"NIM_RECIPE": "demo"}, [])
    env = invocation.build_environment({}, settings, DEMO, "cuda", sliced, visible=[0], private=Path("/p"))
    assert env["CUDA_VISIBLE_DEVICES"] == "MIG-1234"


def test_other_options_of_replicas_do_not_drop_their_number():
    built = command(layout=Layout(1, 1, (), (), "", 8), arguments=["--data-parallel-rpc-port", "1234"])
    assert option(built, "data-parallel-size") == [("8",)]

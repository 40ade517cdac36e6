"""The engine's environment."""

from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.engine import environment as engine
from entrypoint.engine.model import Model
from entrypoint.settings import read
from entrypoint.settings.inside import request_limits
from nimctl.core.layout import CPU_LAYOUT, Layout
from nimctl.core.recipes import Engine, load

DEMO = Model(load("demo"), "builtin://demo", ("a", "b"))


def environment(inherited=None, layout=CPU_LAYOUT, device="cpu", visible=(), **environ):
    settings = read({"NIM_RECIPE": "demo", **environ})
    private = Path("/cache/engine/0/k")
    return engine.build_environment(inherited or {}, settings, DEMO, device, layout, visible=visible, private=private)


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
    env = engine.build_environment(
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
    assert engine.with_own_package({}, Path("/src"))["PYTHONPATH"] == "/src"
    assert engine.with_own_package({"PYTHONPATH": "/o"}, Path("/src"))["PYTHONPATH"] == "/src:/o"
    assert "PYTHONPATH" not in engine.with_own_package({}, Path("/venv/lib/python3.11/site-packages"))


def test_a_slice_is_named_to_the_engine():
    sliced = Layout(1, 1, (0,), (), "", slice="MIG-1234")
    settings = read({"NIM_RECIPE": "demo"}, [])
    env = engine.build_environment({}, settings, DEMO, "cuda", sliced, visible=[0], private=Path("/p"))
    assert env["CUDA_VISIBLE_DEVICES"] == "MIG-1234"


def test_the_request_rules_inside_the_engine_read_what_the_container_was_told():
    env = environment(NIM_ALLOWED_MEDIA_DOMAINS="a.example, 10.0.0.7:8080", NIM_MAX_BODY_MIB="7")
    assert env["VLLM_MEDIA_CONNECTOR"] == "nimctl"
    assert request_limits(env) == (4, 7, ("a.example", "10.0.0.7:8080"), 2**26)
    assert request_limits(environment({"VLLM_MAX_IMAGE_PIXELS": "5"})).max_pixels == 5


def test_what_the_sender_of_traces_needs_comes_through_keys_included():
    given = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=x", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/keys/client.pem"}
    on = {"NIM_ENABLE_OTEL": "1", "NIM_OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert given.items() <= environment(given).items()
    assert "OTEL_SERVICE_NAME" not in environment(given)
    assert environment(given, **on)["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"


def test_answers_that_do_not_depend_on_their_neighbours_are_for_gpus():
    assert environment(device="cuda", NIM_FORCE_DETERMINISTIC="1")["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in environment(NIM_FORCE_DETERMINISTIC="1")
    assert "VLLM_BATCH_INVARIANT" not in environment(device="cuda")

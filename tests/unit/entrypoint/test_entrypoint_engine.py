"""The engine's command line."""

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
from nimctl.core.recipes import load

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
    assert [(o.name, o.values) for o in parsed] == [
        ("seed", ("-1",)), ("config", ('{"a": -2}',)), ("optimization-level", ("3",)),
    ]  # fmt: skip


def test_a_value_without_option():
    with pytest.raises(NimctlError, match="belongs to no option"):
        parse_options(["8192"])


def test_media_domains_are_no_option_of_the_engine():
    assert option(command({"NIM_ALLOWED_MEDIA_DOMAINS": "a.example, b.example:81"}), "allowed-media-domains") == []


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


def test_other_options_of_replicas_do_not_drop_their_number():
    built = command(layout=Layout(1, 1, (), (), "", 8), arguments=["--data-parallel-rpc-port", "1234"])
    assert option(built, "data-parallel-size") == [("8",)]

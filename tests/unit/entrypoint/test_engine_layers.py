"""Where the engine's options come from: each layer over the one below it, and said so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.actions.dry_run import in_words, told
from entrypoint.engine import adapters, invocation
from entrypoint.engine.model import Model
from entrypoint.settings import read
from entrypoint.state import State
from entrypoint.weights import runtime_config
from entrypoint.weights.checkpoint import look_into, peek
from nimctl.core.engine_options import options_of, parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.layout import Layout
from nimctl.core.planning.deciding import asked_of
from nimctl.core.recipes import load
from nimctl.core.recipes.model import Draft

DEMO = Model(load("demo"), "builtin://demo", ("demo",))
LAYOUT = Layout(1, 1, (0,), (), "", arguments={"gpu-memory-utilization": "0.80"})
PLACE = Path("/weights/runtime_config.json")


def build(environ=None, words=(), *, model=DEMO, runtime=None, **more):
    settings = read({"NIM_RECIPE": "demo", **(environ or {})}, words)
    if runtime is not None:
        model = replace(model, runtime=runtime_config.options(runtime, PLACE))
    return invocation.build_command(
        settings, model, "cuda", LAYOUT, snapshot="/weights", state=State(Path("/run/x")), **more
    )


def resolved(*args, **kwargs):
    return {one.option.name: told(one) for one in build(*args, **kwargs).options}


def test_each_layer_goes_over_the_one_below_it():
    steps = [
        ({}, (), None, {"value": "16", "source": "profile"}),
        ({}, (), {"max_num_seqs": 2}, {"value": "2", "source": "runtime_config.json"}),
        ({"NIM_MAX_BATCH_SIZE": "3"}, (), {"max_num_seqs": 2}, {"value": "3", "source": "NIM_MAX_NUM_SEQS"}),
        (
            {"NIM_MAX_NUM_SEQS": "3", "NIM_PASSTHROUGH_ARGS": "--max-num-seqs 4"},
            (),
            {"max_num_seqs": 2},
            {"value": "4", "source": "NIM_PASSTHROUGH_ARGS"},
        ),
        (
            {"NIM_MAX_NUM_SEQS": "3", "NIM_PASSTHROUGH_ARGS": "--max-num-seqs 4"},
            ("--max-num-seqs=5",),
            {"max_num_seqs": 2},
            {"value": "5", "source": "command line"},
        ),
    ]
    for environ, words, runtime, expected in steps:
        assert resolved(environ, words, runtime=runtime)["max-num-seqs"] == expected


def test_what_is_derived_goes_over_a_default_and_below_the_profile_that_it_was_planned_with():
    assert resolved()["gpu-memory-utilization"] == {"value": "0.80", "source": "derived"}
    assert resolved()["shutdown-timeout"] == {"value": "30", "source": "default"}
    assert resolved({"NIM_DRAIN_SECONDS": "9"})["shutdown-timeout"] == {"value": "9", "source": "NIM_DRAIN_SECONDS"}
    found = resolved({"NIM_KV_CACHE_PERCENT": "0.5"})["gpu-memory-utilization"]
    assert found == {"value": "0.5", "source": "NIM_KV_CACHE_PERCENT"}


def test_objects_are_put_together_over_all_layers_and_each_key_tells_its_own():
    environ = {"NIM_MAX_IMAGES_PER_PROMPT": "9", "NIM_PASSTHROUGH_ARGS": "--limit-mm-per-prompt.audio 2"}
    found = resolved(environ, ["--limit-mm-per-prompt", '{"video":3}'], runtime={"limit_mm_per_prompt": {"video": 1}})
    assert found["limit-mm-per-prompt"] == {
        "value": {"vision_chunk": 9, "video": 3, "audio": 2},
        "source": "command line",
        "sources": {
            "vision_chunk": "NIM_MAX_IMAGES_PER_PROMPT",
            "video": "command line",
            "audio": "NIM_PASSTHROUGH_ARGS",
        },
    }


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"NIM_ENABLE_KV_CACHE_REUSE": "0"}, "--no-enable-prefix-caching"),
        ({"NIM_DISABLE_OVERLAP_SCHEDULING": "1"}, "--no-async-scheduling"),
        ({"NIM_DISABLE_CUDA_GRAPH": "0"}, "--no-enforce-eager"),
        ({"NIM_GUIDED_DECODING_BACKEND": "guidance"}, '--structured-outputs-config {"backend":"guidance"}'),
        ({"NIM_FORCE_TRUST_REMOTE_CODE": "true"}, "--trust-remote-code"),
        ({"NIM_TOOL_CALL_PARSER": "hermes"}, "--tool-call-parser hermes"),
        ({"NIM_SCHEDULER_POLICY": "priority"}, "--scheduling-policy priority"),
        ({"NIM_MAX_VIDEOS_PER_PROMPT": "2"}, '--limit-mm-per-prompt {"vision_chunk":4,"video":2}'),
        ({"NIM_DISABLE_LOG_REQUESTS": "0"}, "--enable-log-requests"),
        ({"NIM_PER_REQ_METRICS_ENABLE": "1"}, "--enable-per-request-metrics"),
        ({"NIM_MAX_GPU_LORAS": "8", "NIM_MAX_CPU_LORAS": "16"}, "--max-loras 8 --max-cpu-loras 16"),
        ({"NIM_NUM_SPECULATIVE_TOKENS": "2", "NIM_DRAFT_MODEL_PATH": "/draft"},
         '--speculative-config {"num_speculative_tokens":2,"model":"/draft"}'),
        ({"NIM_SPECDEC_ARGS": '{"method": "mtp"}'}, '--speculative-config {"num_speculative_tokens":3,"method":"mtp"}'),
    ],
)  # fmt: skip
def test_a_variable_is_its_engine_argument(environ, words):
    assert f" {words} " in f" {' '.join(build(environ).argv)} "


def test_drafts_are_the_recipes_own_way_or_words_of_the_prompt(monkeypatch):
    found = resolved({"NIM_SPECDEC_ENABLE": "1"})["speculative-config"]
    assert found["value"]["method"] == "ngram" and found["source"] == "NIM_SPECDEC_ENABLE"
    own = replace(DEMO.recipe, drafts=(Draft("eagle3", 4, "link", model="hf://org/draft"),))
    monkeypatch.setattr("nimctl.core.recipes.load", lambda name: own)
    found = resolved({"NIM_NUM_SPECULATIVE_TOKENS": "2"})["speculative-config"]["value"]
    assert found == {"num_speculative_tokens": 2, "method": "eagle3", "model": "org/draft"}


def test_drafts_can_be_left_out_whoever_asks_for_them():
    drafting = replace(DEMO.recipe.engine.common, args={"speculative-config": '{"method":"mtp"}'})
    model = replace(DEMO, recipe=replace(DEMO.recipe, engine=replace(DEMO.recipe.engine, common=drafting)))
    assert "--speculative-config" in build(model=model).argv
    assert "speculative" not in " ".join(build({"NIM_SPECDEC_ENABLE": "0"}, model=model).argv)
    assert "speculative" not in " ".join(build(words=["--no-speculative-config"], model=model).argv)


def test_options_of_the_weights_are_planned_with():
    runtime = runtime_config.options({"max_model_len": 4096, "NIM_PASSTHROUGH_ARGS": "--max-num-seqs 7"}, PLACE)
    settings = read({"NIM_RECIPE": "demo", "NIM_MAX_NUM_SEQS": "9"})
    wishes = asked_of(DEMO.recipe, invocation.request(settings, runtime))
    assert (wishes.max_len, wishes.max_seqs) == (4096, 9)


def test_a_runtime_config_is_read_by_name_and_what_it_names_goes_before_its_raw_arguments():
    document = {
        "tensor_parallel_size": 2,
        "enable-prefix-caching": False,
        "enforce_eager": True,
        "dtype": None,
        "override_generation_config": {"temperature": 0.5},
        "cudagraph_capture_sizes": [1, 2],
        "NIM_PASSTHROUGH_ARGS": "-tp 4 --seed 1",
    }
    words = [word for option in runtime_config.options(document, PLACE) for word in option.words]
    assert words == [
        "--seed", "1", "--tensor-parallel-size", "2", "--no-enable-prefix-caching", "--enforce-eager",
        "--override-generation-config", '{"temperature":0.5}', "--cudagraph-capture-sizes", "1", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '"x"', '{"NIM_PASSTHROUGH_ARGS": 5}', '{"NIM_PASSTHROUGH_ARGS": "--a \'open"}', "\udcff",
     '{"NIM_PASSTHROUGH_ARGS": "4096"}', '{"max_model_len": {"a": 1}}', '{"stop": [[1]]}', '{"--x": 1}',
         '{"dtype": "--trust-remote-code"}', '{"cudagraph_capture_sizes": [1, "--trust-remote-code"]}', "[" * 100_000],
)  # fmt: skip
def test_a_malformed_one_is_refused_with_its_place(tmp_path, text):
    (tmp_path / "runtime_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for look in (look_into, lambda folder: peek(str(folder), tmp_path / "cache")):
        with pytest.raises(NimctlError) as caught:
            look(tmp_path)
        assert caught.value.id == "config-invalid"
        assert str(tmp_path / "runtime_config.json") in caught.value.fix


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("--middleware"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
some_names = st.sampled_from(
    [
        "NIM_PASSTHROUGH_ARGS",
        "max_model_len",
        "speculative_config",
        "compilation-config",
        "enforce_eager",
        "served",
        "-",
    ]
)


@given(st.dictionaries(some_names | st.text(max_size=9), anything, max_size=4))
def test_whatever_weights_bring_is_an_allowed_option_or_one_error(document):
    try:
        found = runtime_config.options(document, PLACE)
        runtime_config.require_theirs(found, ())
    except NimctlError as error:
        assert error.id == "config-invalid"
    else:
        words = [word for option in found for word in option.words]
        assert {option.name.removeprefix("no-") for option in parse_options(words)} <= runtime_config._ALLOWED


def test_it_is_found_beside_the_weights(tmp_path):
    assert look_into(tmp_path).runtime == ()
    (tmp_path / "runtime_config.json").write_text('{"max_model_len": 1024}', encoding="utf-8")
    assert look_into(tmp_path).runtime == options_of({"max-model-len": 1024})
    assert peek(str(tmp_path), tmp_path / "cache").runtime == look_into(tmp_path).runtime


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"trust_remote_code": True}, "--trust-remote-code"),
        ({"NIM_PASSTHROUGH_ARGS": "--middleware evil.Class"}, "--middleware"),
        ({"tool_parser_plugin": "evil.py"}, "--tool-parser-plugin"),
        ({"worker_extension_cls": "evil.Class"}, "--worker-extension-cls"),
        ({"allowed_local_media_path": "/"}, "--allowed-local-media-path"),
        ({"load_format": "pt"}, "--load-format"),
        ({"chat_template": "/etc/passwd"}, "--chat-template"),
        ({"uds": "/tmp/x"}, "--uds"),
        ({"compilation_config": {"backend": "evil.module"}}, "--compilation-config.backend"),
        ({"speculative_config": {"model": "evil/model"}}, "--speculative-config.model"),
        ({"kv_transfer_config": {"kv_connector_module_path": "evil"}}, "--kv-transfer-config"),
        ({"speculative_config": "nonsense"}, "--speculative-config"),
    ],
)
def test_weights_do_not_decide_what_runs_code_or_opens_places(document, what):
    with pytest.raises(NimctlError) as caught:
        build(runtime=document)
    assert caught.value.id == "config-invalid"
    assert f"the weights ask for {what} " in caught.value.message
    with pytest.raises(NimctlError, match="the weights ask"):
        invocation.request(read({"NIM_RECIPE": "demo"}), runtime_config.options(document, PLACE))


def test_whoever_starts_the_container_may_say_the_same():
    argv = build({"NIM_TRUST_CUSTOM_CODE": "1"}, runtime={"trust_remote_code": True}).argv
    assert argv.count("--trust-remote-code") == 1


def adapter(folder, rank, weights="adapter_model.safetensors"):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}), encoding="utf-8")
    if weights:
        (folder / weights).touch()


def test_every_adapter_in_the_folder_is_served(tmp_path):
    source = tmp_path / "loras"
    adapter(source / "math", 8)
    adapter(source / "a,b=c", 12, "adapter_model.bin")
    (source / "notes").mkdir()
    found = adapters.options_for(source)
    odd = json.dumps({"name": "a,b=c", "path": f"{source}/a,b=c"})
    assert [(o.name, o.values) for o in found] == [
        ("lora-modules", (odd, f"math={source}/math")),
        ("max-lora-rank", ("16",)),
    ]
    environ = {"NIM_PEFT_SOURCE": str(source), "NIM_MAX_LORA_RANK": "64"}
    told_ = resolved(environ, adapters=found)
    assert told_["enable-lora"] == {"value": True, "source": "NIM_PEFT_SOURCE"}
    assert told_["max-lora-rank"] == {"value": "64", "source": "NIM_MAX_LORA_RANK"}
    assert adapters.options_for(None) == ()


@pytest.mark.parametrize("rank", [0, 513, "8", None, True])
def test_an_adapter_that_cannot_be_served_is_refused_before_the_engine_starts(tmp_path, rank):
    adapter(tmp_path / "one", rank)
    with pytest.raises(NimctlError) as caught:
        adapters.options_for(tmp_path)
    assert caught.value.id == "config-invalid" and str(tmp_path / "one") in caught.value.message


def test_adapters_without_weights_or_without_a_folder_are_refused(tmp_path):
    adapter(tmp_path / "here" / "one", 8, weights=None)
    for place in (tmp_path / "here", tmp_path / "nowhere"):
        with pytest.raises(NimctlError, match="config-invalid"):
            adapters.options_for(place)


def test_the_words_for_people_tell_each_option_with_its_source_and_the_command_line_by_line():
    built = build({"NIM_MAX_MODEL_LEN": "2048"}, ["--no-enforce-eager"])
    lines = in_words("id (name)", built.options, built.argv).splitlines()
    assert lines[0] == "Selected profile: id (name)"
    assert ["max-model-len", "2048", "NIM_MAX_MODEL_LEN"] in [line.split() for line in lines]
    assert ["enforce-eager", "false", "command", "line"] in [line.split() for line in lines]
    start = lines.index("Backend Arguments") + 1
    command = " ".join(line.removesuffix("\\").strip() for line in lines[start:])
    assert parse_options(command.split()[3:])[0].name == "uds"
    assert all(line.endswith(" \\") for line in lines[start:-1]) and not lines[-1].endswith("\\")

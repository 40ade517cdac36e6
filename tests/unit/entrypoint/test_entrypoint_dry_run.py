"""`--dry-run` explains a start and does nothing."""

import json

import pytest

from entrypoint.__main__ import bug
from entrypoint.actions.dry_run import dry_run
from entrypoint.observability.journal import Journal
from entrypoint.settings import read
from nimctl.core.errors import NimctlError
from tests.unit.entrypoint.service import service


def test_it_prints_settings_with_sources_and_the_command():
    with service(
        arguments=("nim-serve", "--dry-run", "--max-model-len", "100"), NGC_API_KEY="nvapi-canary-123456"
    ) as one:
        one.start()
        assert one.code() == 0
        document = json.loads(one.out)
        assert document["settings"]["NIM_RECIPE"] == {"value": "demo", "source": "environment"}
        assert document["settings"]["NIM_DRAIN_SECONDS"] == {"value": 30, "source": "default"}
        assert document["layout"]["name"] == "tp1-pp1"
        assert document["engine"][-2:] == ["--max-model-len", "100"]
        assert document["engine_options"]["max-model-len"] == {"value": "100", "source": "command line"}
        assert document["engine_options"]["tensor-parallel-size"] == {"value": "1", "source": "profile"}
        assert document["warnings"] == []
        assert f"Selected profile: {document['profile']['id']} (vllm-bf16-tp1-pp1)" in one.err
        assert "Resolved Configuration" in one.err and "Backend Arguments" in one.err
        assert not one.state.exists()
        assert not (one.fake / "started").exists()
        assert "canary" not in one.out + one.err


def test_it_shows_no_password_of_an_address():
    told = """--speculative-config '{"method": "eagle3", "model": "https://me:canary-1@host/draft"}'"""
    with service(
        arguments=("--dry-run", "--tokenizer", "https://me:canary-2@host/x"),
        NIM_PASSTHROUGH_ARGS=told,
        NIM_RECIPE="",
        NIM_GPUS="none",
        NIM_MODEL_PATH="https://me:canary-3@host/model",
    ) as one:
        one.start()
        assert one.code() == 0, one.err
        document = json.loads(one.out)
        assert document["draft"] == {"name": "https://host/draft", "source": "https://host/draft"}
        assert "canary" not in one.out + one.err


def test_what_would_fail_fails():
    with service(arguments=("--dry-run",), NIMCTL_ENGINE_DEVICE="cuda") as one:
        one.start()
        assert one.code() == 3
        assert "error[gpu-missing]" in one.err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"NIM_SSL_MODE": "TLS"}, "NIM_SSL_MODE=TLS needs NIM_SSL_KEY_PATH"),
        (
            {"NIM_SSL_MODE": "TLS", "NIM_SSL_KEY_PATH": "/no/key", "NIM_SSL_CERTS_PATH": "/no/certificate"},
            "NIM_SSL_KEY_PATH=/no/key cannot be used",
        ),
        ({"NIM_API_KEYS_FILE": "/no/keys"}, "NIM_API_KEYS_FILE=/no/keys cannot be used"),
        ({"NIM_API_KEYS_FILE": "{keys}", "NIM_HEALTH_PORT": "8000"}, "NIM_HEALTH_PORT=8000 is the public port"),
        ({"NIM_CORS_ALLOW_ORIGINS": "https://a.example/"}, "NIM_CORS_ALLOW_ORIGINS cannot be used"),
        ({"NIM_CORS_ALLOW_HEADERS": "A B"}, "NIM_CORS_ALLOW_HEADERS cannot be used"),
        ({"NIM_ENABLE_OTEL": "1"}, "NIM_ENABLE_OTEL=1 needs an address"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_what_the_first_stages_of_a_start_would_refuse_is_refused(tmp_path, wrong, told):
    keys, state = tmp_path / "keys", tmp_path / "state"
    keys.write_text("first-key-0123456789\n", encoding="utf-8")
    environ = {"NIM_RECIPE": "demo", "NIMCTL_STATE_DIR": str(state)}
    environ |= {name: value.replace("{keys}", str(keys)) for name, value in wrong.items()}
    with pytest.raises(NimctlError) as caught:
        dry_run(read(environ), environ, Journal())
    assert (caught.value.id, caught.value.message) == ("config-invalid", told)
    assert not state.exists()


def test_what_nobody_foresaw_is_called_a_bug():
    error = bug(ZeroDivisionError("by zero"))
    assert (error.id, error.exit_code) == ("internal", 1)
    assert error.evidence[-1] == "ZeroDivisionError: by zero", "with its traceback"


def test_what_comes_with_the_weights_is_shown_and_what_is_malformed_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    theirs = tmp_path / "runtime_config.json"
    for text, code in (('{"max_num_seqs": 3}', 0), ("{", 2)):
        theirs.write_text(text, encoding="utf-8")
        with service(arguments=("--dry-run",), NIM_RECIPE="", NIM_GPUS="none", NIM_MODEL_PATH=str(tmp_path)) as one:
            one.start()
            assert one.code() == code, one.err
            if code == 0:
                found = json.loads(one.out)["engine_options"]["max-num-seqs"]
                assert found == {"value": "3", "source": "runtime_config.json"}
            else:
                assert f"Correct or remove {theirs}" in one.err

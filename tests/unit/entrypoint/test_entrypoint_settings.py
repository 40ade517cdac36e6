"""Settings: what is read, from where, and what is refused."""

from pathlib import Path

import pytest

from entrypoint.settings import ACCESS, ACCESS_FAMILIES, VARIABLES, explain, read
from entrypoint.settings.inside import request_limits
from nimctl.core.errors import NimctlError
from nimctl.core.recipes import DEFAULT_MODEL

ROOT = Path(__file__).parents[3]


def refused(environ, arguments=()):
    with pytest.raises(NimctlError) as caught:
        read(environ, arguments)
    return caught.value


def test_defaults():
    settings = read({"NIM_RECIPE": "demo"})
    assert (settings.port, settings.host, settings.max_images, settings.gpus) == (8000, "0.0.0.0", 4, "all")
    assert settings.sources["NIM_RECIPE"] == "environment"
    assert settings.sources["NIM_SERVER_PORT"] == "default"


def test_an_empty_variable_is_not_set():
    assert read({"NIM_RECIPE": "demo", "NIM_SERVER_PORT": ""}).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIM_SERVER_PORT", "0"),
        ("NIM_SERVER_PORT", "65536"),
        ("NIM_SERVER_PORT", "80a"),
        ("NIM_SERVER_HOST", "localhost; include /etc/passwd"),
        ("NIM_MAX_IMAGES_PER_PROMPT", "-1"),
        ("NIM_CACHE_PROBE_TIMEOUT", "soon"),
        ("NIM_LOG_LEVEL", "LOUD"),
        ("NIMCTL_ENGINE_DEVICE", "tpu"),
        ("NIMCTL_STATE_DIR", "relative"),
        ("NIMCTL_STATE_DIR", '/tmp/a";evil'),
        ("NIM_PASSTHROUGH_ARGS", "--a 'open"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "https://assets.example/x"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "a.example, none"),
    ],
)
def test_values_that_do_not_fit_name_their_variable(name, value):
    error = refused({"NIM_RECIPE": "demo", name: value})
    assert error.id == "config-invalid"
    assert f"{name}={value}" in error.message


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("", ()),
        ("None", ("none",)),
        ("A.example,*.bücher.example:8", ("a.example", "*.xn--bcher-kva.example:8")),
    ],
)
def test_media_hosts_are_kept_as_they_are_compared_also_inside_the_engine(value, hosts):
    settings = read({"NIM_RECIPE": "demo", "NIM_ALLOWED_MEDIA_DOMAINS": value})
    assert settings.allowed_media_domains == hosts
    passed = {"NIM_ALLOWED_MEDIA_DOMAINS": " ".join(settings.allowed_media_domains)}
    assert request_limits(passed).allowed_media_domains == hosts


def test_something_must_be_served():
    assert refused({}).id == "config-invalid"


@pytest.mark.parametrize(("device", "model"), [("cpu", "demo"), ("cuda", DEFAULT_MODEL)])
def test_an_image_serves_its_own_model_where_none_was_named(device, model):
    """As NVIDIA's images do, and as its operator asks for it: with a profile's id and nothing else."""
    for environ in ({}, {"NIM_MODEL_PROFILE": "vllm-bf16-tp1-pp1"}, {"NIM_RECIPE": "", "NIM_MODEL_PATH": ""}):
        settings = read({"NIMCTL_ENGINE_DEVICE": device, **environ})
        assert (settings.recipe, settings.sources["NIM_RECIPE"], settings.model_path) == (model, "image", None)
        assert explain(settings)["NIM_RECIPE"] == {"value": model, "source": "image"}
    for environ, words in (({"NIM_MODEL_PATH": "/x"}, ()), ({"NIM_MODEL_NAME": "/x"}, ()), ({}, ("/x",))):
        settings = read({"NIMCTL_ENGINE_DEVICE": device, **environ}, words)
        assert (settings.recipe, settings.model_path, settings.sources["NIM_RECIPE"]) == (None, "/x", "default")
    assert read({"NIMCTL_ENGINE_DEVICE": device, "NIM_RECIPE": "x"}).sources["NIM_RECIPE"] == "environment"


def test_the_command_line():
    settings = read({"NIM_RECIPE": "demo", "NIM_PASSTHROUGH_ARGS": "--a 1"}, ["nim-serve", "--b", "2", "--dry-run"])
    assert settings.dry_run
    assert settings.engine_args == ("--a", "1", "--b", "2")


def test_a_model_on_the_command_line_wins():
    settings = read({"NIM_MODEL_PATH": "/one"}, ["/two", "--x"])
    assert (settings.model_path, settings.sources["NIM_MODEL_PATH"]) == ("/two", "command line")


def test_an_unknown_action_is_not_taken_for_a_model():
    assert refused({"NIM_RECIPE": "demo"}, ["list-everything"]).id == "usage"


def test_unknown_names_are_told_with_what_was_probably_meant():
    (said,) = read({"NIM_RECIPE": "demo", "NIM_SERVER_PROT": "1"}).unknown
    assert said == "NIM_SERVER_PROT is unknown and does nothing; NIM_SERVER_PORT may be meant"


def test_keys_are_collected_only_to_be_masked(tmp_path):
    key = tmp_path / "key"
    key.write_text("from-file\n")
    settings = read({"NIM_RECIPE": "demo", "NGC_API_KEY": "from-env", "HF_TOKEN_FILE": str(key)})
    assert {s.reveal() for s in settings.secrets} == {"from-env", "from-file"}
    assert "from-" not in repr(settings) + str(explain(settings))


def test_a_key_file_that_cannot_be_read():
    error = refused({"NIM_RECIPE": "demo", "NGC_API_KEY_FILE": "/no/such/key"})
    assert (error.id, "NGC_API_KEY_FILE" in error.message) == ("config-invalid", True)


def test_every_variable_is_documented():
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert not [v.name for v in VARIABLES if f"`{v.name}`" not in text]
    assert not [name for name in ACCESS if f"`{name}`" not in text]
    assert not [family for family in ACCESS_FAMILIES if f"`{family}*`" not in text]


def test_ways_to_the_weights_are_told_without_their_values():
    environ = {
        "NIM_RECIPE": "demo",
        "HF_TOKEN": "sesame-1",
        "AWS_SECRET_ACCESS_KEY": "sesame-2",
        "AWS_REGION": "us-east-1",
        "NIM_REPOSITORY_OVERRIDE": "https://me:sesame-3@mirror.example/nim",
    }
    settings = read(environ)
    assert settings.unknown == ()
    told = explain(settings)
    assert {told[name]["source"] for name in environ} == {"environment"}
    assert told["HF_ENDPOINT"] == {"value": None, "source": "default"}
    assert "sesame" not in str(told) + repr(settings)
    assert {"sesame-1", "sesame-2", "sesame-3"} <= {secret.reveal() for secret in settings.secrets}
    assert "us-east-1" not in {secret.reveal() for secret in settings.secrets}


def test_the_download_is_an_action_of_its_own():
    assert "first word" in refused({"NIM_RECIPE": "demo"}, ["--dry-run", "download-to-cache"]).cause


def test_key_files_of_object_stores_are_masked_too(tmp_path):
    key = tmp_path / "key"
    key.write_text("sesame-4\n", encoding="utf-8")
    settings = read({"NIM_RECIPE": "demo", "AWS_SECRET_ACCESS_KEY_FILE": str(key)})
    assert {secret.reveal() for secret in settings.secrets} == {"sesame-4"}
    assert settings.access["AWS_SECRET_ACCESS_KEY_FILE"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIM_DRAFT_MODEL_PATH", "https://me:sesame-5@host/draft"),
        ("NIM_SPECDEC_ARGS", '{"model": "https://me:sesame-5@host/draft"}'),
        ("NIM_PASSTHROUGH_ARGS", "--tokenizer https://me:sesame-5@host/x"),
    ],
)
def test_passwords_in_addresses_are_masked_wherever_they_are(name, value):
    assert {secret.reveal() for secret in read({"NIM_RECIPE": "demo", name: value}).secrets} == {"sesame-5"}

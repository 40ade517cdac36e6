"""Which hosts a model needs, and what its registry says: by recipe, image, settings and what lies here already."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.cli import reaching
from nimctl.cli.config import Config, load
from nimctl.cli.target import Target
from nimctl.core import recipes
from nimctl.core.facts import ImageFacts
from nimctl.core.fetch import Access, fetch
from nimctl.core.plain import to_plain
from nimctl.doctor.observe.reach import Destination
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import FaultHub
from tests.lib.little_registry import DIGEST, USER, Answer, errors, little_registry

KIMI = Target(recipes.load("kimi-k2.5"), "a test")
DEMO = Target(recipes.load("demo"), "a test")
TURBO = Target(recipes.load("kimi-k2.5-turbo"), "a test")
PERSONAL, LEGACY = "nvapi-canary-0123456789", "bGVnYWN5" * 10 + "a2V5"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("nimctl.launch.docker.look_at_image", lambda reference, seconds: ImageFacts(reference))
    for name in ("MODEL", "IMAGES_CUDA", "IMAGES_CPU", "IMAGES_REGISTRY", "GPUS", "RUNTIME"):
        monkeypatch.delenv(f"NIMCTL_{name}", raising=False)
    return load({"cache": str(tmp_path / "cache"), "gpus": "all"})


def of(weights: str) -> Target:
    return Target(replace(KIMI.recipe, weights=weights), "a test")


def asked(target: Target, config: Config, **environment: str) -> list[tuple[str, str]]:
    return [(d.url, d.purpose) for d in reaching.destinations(target, config, environment)]


def test_our_image_is_built_here_and_the_weights_come_from_the_hub(config):
    assert asked(KIMI, config) == [
        ("https://huggingface.co", "weights"),
        ("https://us.aws.cdn.hf.co", "weights files"),
    ]


def test_an_image_of_nvidia_and_what_its_container_asks(config):
    assert asked(TURBO, config) == [
        ("https://nvcr.io/v2/", "image"),
        ("https://layers.nvcr.io", "image layers"),
        *((f"https://{host}.nvidia.com", "weights of the container") for host in ("api.ngc", "authn", "xfiles.ngc")),
    ]
    assert all("image" in purpose for _, purpose in asked(TURBO, config, NIM_REPOSITORY_OVERRIDE="s3://bucket"))


@pytest.mark.parametrize(
    ("registry", "urls"),
    [
        ("registry.corp:5000/nim", ["https://registry.corp:5000/v2/"]),
        ("team/nimctl", ["https://registry-1.docker.io/v2/", "https://auth.docker.io",
                         "https://production.cloudflare.docker.com"]),
        ("localhost:5000", []),
        ("Not A Reference", []),
    ],
)  # fmt: skip
def test_our_image_from_a_configured_registry(config, monkeypatch, registry, urls):
    monkeypatch.setenv("NIMCTL_IMAGES_REGISTRY", registry)
    configured = load({"cache": str(config.cache), "gpus": "all"})
    assert [url for url, _ in asked(DEMO, configured)] == urls


def test_processes_need_no_image(config):
    processes = load({"cache": str(config.cache), "runtime": "process"})
    assert [purpose for _, purpose in asked(replace(KIMI, image="nvcr.io/a/b:1"), processes)] == [
        "weights",
        "weights files",
    ]
    assert reaching.image_access(TURBO, processes, {}) is None


@pytest.mark.parametrize(
    ("weights", "environment", "expected"),
    [
        ("hf://org/name", {"HF_ENDPOINT": "https://hub.corp/"}, ["https://hub.corp"]),
        ("ngc://nim/meta/llama:1", {}, ["https://api.ngc.nvidia.com", "https://xfiles.ngc.nvidia.com"]),
        ("ngc://nim/meta/llama:1", {"NGC_API_KEY": PERSONAL, "NGC_API_ENDPOINT": "ngc.corp"}, ["https://ngc.corp"]),
        ("ngc://nim/meta/llama:1", {"NGC_API_KEY": LEGACY},
         ["https://api.ngc.nvidia.com", "https://authn.nvidia.com", "https://xfiles.ngc.nvidia.com"]),
        ("https://user:canary@mirror.corp:8443/models/kimi", {}, ["https://mirror.corp:8443"]),
        ("s3://bucket/kimi", {"AWS_REGION": "eu-west-1"}, ["https://bucket.s3.eu-west-1.amazonaws.com"]),
        ("s3://my.bucket/kimi", {}, ["https://s3.us-east-1.amazonaws.com"]),
        ("s3://bucket/kimi", {"AWS_ENDPOINT_URL": "https://minio.corp:9000"}, ["https://minio.corp:9000"]),
        ("gs://bucket/kimi", {}, ["https://storage.googleapis.com"]),
        ("hf://org/name", {"NIM_REPOSITORY_OVERRIDE": "jfrog://jfrog.corp/x"}, ["https://jfrog.corp"]),
        ("hf://org/name", {"NIM_REPOSITORY_OVERRIDE": "s3://bucket"}, ["https://bucket.s3.us-east-1.amazonaws.com"]),
        ("hf://org/name", {"NIM_REPOSITORY_OVERRIDE": "/data/mirror"}, []),
        ("hf://org/name", {"HF_ENDPOINT": "no address"}, []),
        ("hf://org/name", {"NIM_REPOSITORY_OVERRIDE": "ftp://x"}, []),
        ("builtin://demo", {}, []),
        ("/data/checkpoint", {}, []),
        ("file:///data/checkpoint", {}, []),
    ],
)  # fmt: skip
def test_sources_of_weights(config, weights, environment, expected):
    found = reaching.destinations(of(weights), config, environment)
    assert [destination.url for destination in found] == expected
    assert [d.purpose for d in found][:1] == ["weights"] * bool(expected)
    assert "canary" not in repr(found)


def test_a_folder_needs_nobody(config, tmp_path):
    assert asked(replace(of("hf://org/name"), folder=tmp_path), config) == []


def test_offline_nobody_is_asked(config):
    assert reaching.destinations(TURBO, config, {"HF_HUB_OFFLINE": "1"}) == ()
    assert reaching.image_access(TURBO, config, {"HF_HUB_OFFLINE": "1"}) is None


def test_weights_that_the_cache_holds_whole_need_nobody(config):
    with FaultHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": safetensors(100)})
        environment = {"HF_ENDPOINT": hub.url}
        assert asked(of("hf://org/name"), config, **environment) == [(hub.url, "weights")]
        fetch("hf://org/name", config.cache, access=Access(hf_endpoint=hub.url))
        before = len(hub.requests())
        assert asked(of("hf://org/name"), config, **environment) == []
        assert asked(of("hf://org/name:other"), config, **environment) == [(hub.url, "weights")]
        assert len(hub.requests()) == before  # the cache alone was looked at


def test_a_cache_that_does_not_answer_is_left_behind(config, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(reaching, "_COMPLETE_WITHIN", 0.05)
    monkeypatch.setattr("nimctl.core.fetch.open_source", lambda *args, **kwargs: stuck.wait(20))
    try:
        assert ("https://huggingface.co", "weights") in asked(KIMI, config)
    finally:
        stuck.set()


# what the registry says


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


def log_in(config_folder: Path, address: str, key: str) -> None:
    login = {"username": USER, "password": key}
    (config_folder / "config.json").write_text(json.dumps({"auths": {address: login}}))


def image(registry, name: str = "nim/a/b:1") -> Target:
    return Target(replace(TURBO.recipe, image=f"{registry.address}/{name}"), "a test")


def look(target: Target, config: Config, seconds: float = 20.0, **environment: str):
    ask = reaching.image_access(target, config, environment)
    assert ask is not None
    return ask(seconds)


def test_an_image_that_the_login_may_pull(registry, config, tmp_path):
    log_in(tmp_path, registry.address, registry.key)
    found = look(image(registry), config)
    assert (found.id, found.digest, found.credentials) == (None, DIGEST, "docker-login")
    assert {request.method for request in registry.seen if "/manifests/" in request.path} == {"HEAD"}
    assert not [request for request in registry.seen if "/blobs/" in request.path]


@pytest.mark.parametrize(
    ("status", "code", "id_"),
    [
        (403, "DENIED", "terms-not-accepted"),
        (402, "PAYMENT_REQUIRED", "payment-required"),
        (404, "MANIFEST_UNKNOWN", "image-not-found"),
        (401, "UNAUTHORIZED", "key-refused"),
        (503, "UNAVAILABLE", "image-pull-failed"),
    ],
)
def test_refusals_keep_their_ids_and_no_key(registry, config, tmp_path, status, code, id_):
    log_in(tmp_path, registry.address, registry.key)
    registry.manifest = lambda _: Answer(status, errors(code, f"no, {registry.key}"))
    found = look(image(registry), config)
    assert (found.id, found.digest) == (id_, None)
    assert found.message and found.cause and found.fix and f"answered {status}" in found.evidence[0]
    assert registry.key not in json.dumps(to_plain(found))


def test_without_a_login_the_key_is_missing(registry, config):
    registry.manifest = lambda _: Answer(401)
    found = look(image(registry), config)
    assert (found.id, found.credentials) == ("key-missing", "none")


def test_the_key_of_the_environment_goes_to_nvidia_alone(registry, config):
    found = look(image(registry), config, NGC_API_KEY=registry.key)
    assert found.credentials == "none"
    assert not [request for request in registry.seen if request.authorization == registry.basic]


def test_a_configuration_of_docker_that_cannot_be_read_is_said(registry, config, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert look(image(registry), config).id == "credentials-unwritable"


def test_a_registry_that_hangs_is_left_in_time(registry, config):
    registry.ping = lambda _: Answer(hang=True)
    with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
        look(image(registry), config, seconds=0.3)


def test_what_is_built_here_is_asked_for_nowhere(config):
    assert reaching.image_access(KIMI, config, {}) is None


def test_an_image_that_is_here_is_not_asked_for(registry, config, monkeypatch):
    here = ImageFacts(image(registry).recipe.image or "", present=True)
    monkeypatch.setattr("nimctl.launch.docker.look_at_image", lambda reference, seconds: here)
    assert look(image(registry), config) is None
    assert registry.seen == []


def test_a_docker_that_hangs_does_not_keep_the_registry_from_being_asked(registry, config, monkeypatch, tmp_path):
    log_in(tmp_path, registry.address, registry.key)
    stuck = threading.Event()
    monkeypatch.setattr(reaching, "_PRESENT_WITHIN", 0.05)
    monkeypatch.setattr("nimctl.launch.docker.look_at_image", lambda reference, seconds: stuck.wait(20))
    try:
        assert look(image(registry), config).digest == DIGEST
    finally:
        stuck.set()


def test_destinations_are_plain_data(config):
    assert reaching.destinations(KIMI, config, {})[0] == Destination("https://huggingface.co", "weights")

"""Fault: the registry does not accept the key, or does not give the image to it."""

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry.credentials import login, stored
from nimctl.registry.entitlement import resolve_digest
from nimctl.registry.login import Login
from nimctl.registry.reference import parse
from tests.lib import lab
from tests.lib.little_registry import USER, Answer, errors, little_registry


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


def refusal(registry, image: str, key: str | None) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        resolve_digest(parse(f"{registry.address}/{image}"), Login(USER, Secret(key)) if key else None)
    return caught.value


def test_a_wrong_key_is_refused_and_not_stored(registry, tmp_path):
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret("nvapi-wrong-key"), config_dir=tmp_path)
    assert (caught.value.id, caught.value.exit_code) == ("key-refused", 4)
    assert "wrong, expired or revoked" in caught.value.cause
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_the_registry_itself_refuses_after_the_token(registry, tmp_path):
    registry.ping = lambda r: registry.good_ping(r) if r.authorization is None else Answer(403, errors("DENIED", "no"))
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret(registry.key), config_dir=tmp_path)
    assert caught.value.id == "key-refused"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "error_id"), [("", "key-missing"), ("two words", "key-refused"), ("line\nend", "key-refused")]
)
def test_what_is_no_key_is_not_sent(registry, tmp_path, value, error_id):
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret(value), config_dir=tmp_path)
    assert caught.value.id == error_id
    assert registry.seen == []


@pytest.mark.parametrize(
    ("name", "user"), [("nvcr.io/nim", "u"), ("https://nvcr.io", "u"), ("", "u"), ("nvcr.io", "a:b")]
)
def test_what_is_no_registry_or_user_is_not_asked(tmp_path, name, user):
    with pytest.raises(NimctlError) as caught:
        login(name, user, Secret("x"), config_dir=tmp_path)
    assert caught.value.id == "usage"


@pytest.mark.parametrize(
    ("image", "status", "body", "error_id"),
    [
        ("nim/a/b:1", 403, errors("DENIED", "Access Denied"), "terms-not-accepted"),
        ("other/b:1", 403, errors("DENIED", "Access Denied"), "organisation-wrong"),
        ("other/b:1", 403, errors("DENIED", "You must accept the license agreement"), "terms-not-accepted"),
        ("nim/a/b:1", 402, errors("PAYMENT_REQUIRED", "Payment Required"), "payment-required"),
        ("nim/a/b:1", 401, errors("UNAUTHORIZED", "authentication required"), "key-refused"),
        ("nim/a/b:1", 404, errors("MANIFEST_UNKNOWN", "manifest unknown"), "image-not-found"),
        ("nim/a/b:1", 429, errors("TOOMANYREQUESTS", "slow down"), "image-rate-limited"),
        ("nim/a/b:1", 503, b"<html><h1>Sorry</h1></html>", "image-pull-failed"),
        ("nim/a/b:1", 418, b"", "image-pull-failed"),
    ],
)
def test_what_the_registry_says_about_an_image(registry, image, status, body, error_id):
    registry.manifest = lambda _: Answer(status, body)
    error = refusal(registry, image, registry.key)
    assert error.id == error_id
    assert f"answered {status}" in error.evidence[0]
    if error_id == "terms-not-accepted":
        assert ("catalog.ngc.nvidia.com/orgs/nim/teams/a/containers/b" in error.fix) == ("nim" in image)
    if error_id == "payment-required":
        assert error.exit_code == 4 and "NVIDIA AI Enterprise" in error.fix


@pytest.mark.parametrize("status", [401, 403])
def test_without_a_key_the_way_to_log_in_is_shown(registry, status):
    registry.manifest = lambda _: Answer(status)
    error = refusal(registry, "nim/a/b:1", None)
    assert (error.id, error.exit_code) == ("key-missing", 4)
    assert f"nimctl login {registry.address}" in error.fix
    registry.token = lambda _: Answer(status)
    assert refusal(registry, "nim/a/b:1", None).id == "key-missing"


@pytest.mark.lab
class TestRealRegistry:
    """The same verdicts from docker-registry with its token authentication."""

    def test_login_is_proved_stored_and_opens_the_image(self, tmp_path):
        registry = lab.registry_info()
        result = login(registry.address, registry.user, Secret(registry.key), config_dir=tmp_path)
        assert result.plaintext
        digest = lab.push_image("nim/test/entitled:1")
        found = stored(registry.address, tmp_path)
        assert resolve_digest(parse(f"{registry.address}/nim/test/entitled:1"), found) == digest
        assert resolve_digest(parse(f"{registry.address}/nim/test/entitled@{digest}"), found) == digest

    def test_what_docker_stores_is_read_and_what_is_stored_opens_docker(self, tmp_path):
        registry = lab.registry_info()
        lab.push_image("nim/test/shared:1")
        image = f"{registry.address}/nim/test/shared:1"
        dockers = lab.docker_config(tmp_path / "docker", key=registry.key)
        assert stored(registry.address, dockers) == Login(registry.user, Secret(registry.key))
        login(registry.address, registry.user, Secret(registry.key), config_dir=tmp_path / "ours")
        try:
            assert lab.docker("--config", tmp_path / "empty", "pull", image).returncode != 0
            pulled = lab.docker("--config", tmp_path / "ours", "pull", image)
            assert pulled.returncode == 0, pulled.stderr
        finally:
            lab.docker("image", "rm", "--force", image)

    def test_a_wrong_key(self, tmp_path):
        registry = lab.registry_info()
        with pytest.raises(NimctlError) as caught:
            login(registry.address, registry.user, Secret(f"{registry.key}x"), config_dir=tmp_path)
        assert caught.value.id == "key-refused"
        assert list(tmp_path.iterdir()) == []

    def test_with_and_without_a_key(self):
        registry = lab.registry_info()
        assert refusal(registry, "nim/moonshotai/kimi-k2.5-turbo:1.0.0", None).id == "key-missing"
        assert refusal(registry, "nim/moonshotai/kimi-k2.5-turbo:9.9.9", registry.key).id == "image-not-found"
        assert refusal(registry, "nim/moonshotai/nothing:1", registry.key).id == "image-not-found"
        assert resolve_digest(parse(f"{registry.address}/open/tiny:1"), None).startswith("sha256:")

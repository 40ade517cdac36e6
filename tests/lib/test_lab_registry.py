"""The lab's registry through a real docker client: what is accepted, and each way to be refused."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib import lab

pytestmark = pytest.mark.lab

NIM = "nim/moonshotai/kimi-k2.5:1.7.0-variant"


@pytest.fixture(autouse=True)
def _first_situations() -> Iterator[None]:
    lab.reset_situations()
    yield
    lab.reset_situations()


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return lab.docker_config(tmp_path / "stranger")


@pytest.fixture
def customer(tmp_path: Path) -> Path:
    return lab.docker_config(tmp_path / "customer", key=lab.registry_info().key)


def pull(config: Path, image: str) -> tuple[int, str]:
    reference = f"{lab.registry_info().address}/{image}"
    lab.docker("image", "rm", reference)
    done = lab.docker("--config", config, "pull", reference, timeout=60)
    return done.returncode, done.stderr.strip()


def test_the_key_is_accepted(customer: Path) -> None:
    assert pull(customer, NIM) == (0, "")


def test_a_wrong_key_is_refused_at_login(tmp_path: Path) -> None:
    with pytest.raises(lab.LabError, match="unauthorized"):
        lab.docker_config(tmp_path, key="nvapi-wrong")


def test_a_key_that_is_no_longer_valid_is_a_401(tmp_path: Path) -> None:
    config = lab.docker_config(tmp_path)
    file = config / "config.json"
    auth = {lab.registry_info().address: {"auth": "JG9hdXRodG9rZW46b2xk"}}  # $oauthtoken:old
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auths": auth}))
    code, error = pull(config, NIM)
    assert code == 1
    assert "unauthorized" in error


def test_without_a_key_only_public_images_come(stranger: Path) -> None:
    assert pull(stranger, "open/tiny:1") == (0, "")
    code, error = pull(stranger, NIM)
    assert code == 1
    assert "denied" in error


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("unpaid/tiny:1", "Payment Required"),
        ("terms/tiny:1", "denied: Access Denied"),
        ("busy/tiny:1", "toomanyrequests"),
        ("down/tiny:1", "503 Service Unavailable"),
        ("nim/moonshotai/no-such-model:1", "manifest unknown"),
        ("nim/moonshotai/kimi-k2.5:no-such-tag", "manifest unknown"),
    ],
)
def test_each_refusal_has_its_own_words(customer: Path, image: str, message: str) -> None:
    code, error = pull(customer, image)
    assert code == 1
    assert message in error


@pytest.mark.parametrize(("situation", "status", "code"), [
    ("payment-required", 402, "PAYMENT_REQUIRED"), ("terms", 403, "DENIED"),
    ("rate-limited", 429, "TOOMANYREQUESTS"), ("unavailable", 503, "UNAVAILABLE"),
])  # fmt: skip
def test_a_situation_is_a_status_and_an_error_body(situation: str, status: int, code: str) -> None:
    lab.set_situation("nim/*", situation)
    connection = http.client.HTTPConnection(lab.registry_info().address, timeout=10)
    try:
        path = "/v2/nim/moonshotai/kimi-k2.5/manifests/1.7.0-variant"
        connection.request("GET", path, headers={"Authorization": "Bearer any"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["errors"][0]["code"]) == (status, code)
    finally:
        connection.close()


def test_a_token_that_nobody_signed_is_refused() -> None:
    connection = http.client.HTTPConnection(lab.registry_info().address, timeout=10)
    try:
        connection.request("GET", "/v2/", headers={"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."})
        answer = connection.getresponse()
        assert answer.status == 401
        assert "/proxy_auth" in (answer.getheader("WWW-Authenticate") or "")
    finally:
        connection.close()


def test_terms_once_accepted_let_the_pull_through(customer: Path) -> None:
    lab.set_situation("nim/moonshotai/*", "terms")
    assert pull(customer, NIM)[0] == 1
    lab.set_situation("nim/moonshotai/*", "key")
    assert pull(customer, NIM) == (0, "")


def test_what_was_pushed_comes_back_by_its_digest(customer: Path) -> None:
    digest = lab.push_image("nim/pushed:1", {"opt/model/name": b"kimi"})
    assert pull(customer, f"nim/pushed@{digest}") == (0, "")


def test_a_real_image_can_be_pushed_and_pulled(customer: Path) -> None:
    reference = f"{lab.registry_info().address}/nim/base:pushed"
    assert lab.docker("tag", lab.BASE_IMAGE, reference).returncode == 0
    pushed = lab.docker("--config", customer, "push", reference)
    assert pushed.returncode == 0, pushed.stderr
    assert pull(customer, "nim/base:pushed") == (0, "")
    lab.docker("image", "rm", reference)

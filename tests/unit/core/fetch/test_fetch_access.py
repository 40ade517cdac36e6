"""What the environment says of endpoints; whom redirects may lead to."""

from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import from_environment
from nimctl.core.fetch.http import client

HERE = "https://hub.example/a/b"


@pytest.mark.parametrize(
    ("name", "key"),
    [("HF_ENDPOINT", "HF_TOKEN"), ("NGC_API_ENDPOINT", "NGC_API_KEY"), ("NGC_AUTH_ENDPOINT", "NGC_API_KEY")],
)
@pytest.mark.parametrize("login", ["me:canary", "canary", "me:can/canary", ":canary"])
def test_a_password_in_an_endpoint_is_refused_and_not_shown(name: str, key: str, login: str) -> None:
    with pytest.raises(NimctlError) as caught:
        from_environment({name: f"https://{login}@mirror.example/hub"})
    assert caught.value.id == "config-invalid"
    assert name in caught.value.message
    assert key in caught.value.fix
    assert "canary" not in str(caught.value.to_json())


def test_a_bare_host_with_a_login_is_refused_too() -> None:
    with pytest.raises(NimctlError, match="NGC_API_ENDPOINT"):
        from_environment({"NGC_API_ENDPOINT": "me:canary@mirror.example"})


def test_endpoints_without_a_login_are_taken() -> None:
    access = from_environment({"HF_ENDPOINT": "https://mirror.example:8443/hub/", "NGC_API_ENDPOINT": "ngc.example"})
    assert (access.hf_endpoint, access.ngc_endpoint) == ("https://mirror.example:8443/hub", "https://ngc.example")


@pytest.mark.parametrize(
    ("here", "location", "there"),
    [
        (HERE, "c", "https://hub.example/a/c"),
        (HERE, "//cdn.example/c", "https://cdn.example/c"),
        (HERE, "HTTPS://cdn.example/c", "HTTPS://cdn.example/c"),
        ("HTTPS://hub.example/a", "https://cdn.example/c", "https://cdn.example/c"),
        ("http://hub.example/a", "HTTP://cdn.example/c", "HTTP://cdn.example/c"),
        ("http://hub.example/a", "HTTPS://cdn.example/c", "HTTPS://cdn.example/c"),
    ],
)
def test_redirects_that_are_followed(here: str, location: str, there: str) -> None:
    assert client._redirected(here, location).lower() == there.lower()


@pytest.mark.parametrize(
    ("here", "location", "why"),
    [
        (HERE, "http://cdn.example/c?sig=canary", "http://cdn.example/c, which is not encrypted"),
        (HERE, "HTTP://cdn.example/c", "not encrypted"),
        ("HTTPS://hub.example/a", "http://cdn.example/c", "not encrypted"),
        (HERE, "ftp://cdn.example/c", "leads to ftp:, which is neither https nor http"),
        (HERE, "file:///etc/passwd", "leads to file:, which is neither"),
        ("http://hub.example/a", "ftp://cdn.example/c", "neither"),
        (HERE, "https://[canary", "leads to no address"),
    ],
)
def test_redirects_that_are_refused_for_what_they_are(here: str, location: str, why: str) -> None:
    with pytest.raises(NimctlError) as caught:
        client._redirected(here, location)
    assert caught.value.id == "weights-source-failed"
    assert why in caught.value.cause
    assert "canary" not in str(caught.value.to_json())


def test_keys_of_object_stores_may_lie_in_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-file\n", encoding="utf-8")
    told = {"AWS_SECRET_ACCESS_KEY_FILE": str(key), "AWS_ACCESS_KEY_ID": "id", "AWS_CONFIG_FILE": "/aws/config"}
    found = from_environment(told).object_store
    assert {name: value.reveal() for name, value in found.items()} == {
        "AWS_SECRET_ACCESS_KEY": "from-file",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_CONFIG_FILE": "/aws/config",
    }
    key.write_text("", encoding="utf-8")
    with pytest.raises(NimctlError, match="AWS_SECRET_ACCESS_KEY_FILE"):
        from_environment(told)

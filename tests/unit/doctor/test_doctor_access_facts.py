"""What is seen of keys, logins, proxies and CA bundles; and never what they hold."""

import json
import os
from pathlib import Path

import pytest

from nimctl.core.facts import CaFacts
from nimctl.core.plain import to_plain
from nimctl.doctor import proxies
from nimctl.doctor.observe.credentials import kind_of, look_at_credentials
from nimctl.doctor.observe.network import look_at_authorities, look_at_proxies

CANARY = "nvapi-canary-0123456789"
LEGACY = "bGVnYWN5" * 10 + "a2V5"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def docker(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "config.json").chmod(mode)
    return {"DOCKER_CONFIG": str(folder), "PATH": str(folder)}


# keys


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (CANARY, "personal"),
        ("hf_abcdefgh", "hugging-face"),
        (LEGACY, "legacy"),
        (LEGACY[:-1], "other"),
        (LEGACY[:-1] + "=", "other"),
        ("something", "other"),
    ],
)
def test_the_kind_of_a_key(key, kind):
    assert kind_of(key) == kind


def test_keys_are_told_by_kind_and_mode_wherever_they_come_from(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{CANARY}\n")
    file.chmod(0o644)
    found = look_at_credentials({"NGC_API_KEY_FILE": str(file), "HF_TOKEN": "hf_canary0123", "HOME": str(tmp_path)})
    assert (found.keys, found.kinds) == (
        {"NGC_API_KEY": True, "HF_TOKEN": True},
        {"NGC_API_KEY": "personal", "HF_TOKEN": "hugging-face"},
    )
    assert found.key_files == {"NGC_API_KEY_FILE": "0644"}


def test_a_key_file_that_is_not_there_is_no_key(tmp_path):
    found = look_at_credentials({"NGC_API_KEY_FILE": str(tmp_path / "none"), "HOME": str(tmp_path)})
    assert found.keys["NGC_API_KEY"] is False and found.kinds == {} and found.key_files == {}


# Docker's logins


def test_no_configuration_is_nothing(tmp_path):
    found = look_at_credentials({"HOME": str(tmp_path)})
    assert (found.logins, found.plaintext, found.config_mode, found.config_problem) == ((), (), None, None)
    assert found.store is None and found.helper_problem is None


def test_logins_in_the_file_are_told_from_those_of_a_helper(tmp_path):
    text = json.dumps(
        {
            "auths": {
                "nvcr.io": {"auth": "c2VjcmV0"},
                "https://index.docker.io/v1/": {},
                "ghcr.io": {"identitytoken": "t"},
            },
            "credHelpers": {"gcr.io": "gcloud"},
        }
    )
    found = look_at_credentials(docker(tmp_path, text, 0o640))
    assert found.logins == ("gcr.io", "ghcr.io", "index.docker.io", "nvcr.io")
    assert found.plaintext == ("ghcr.io", "nvcr.io")
    assert found.config_mode == "0640"
    assert found.helper_problem == "docker-credential-gcloud is not on the PATH"


def test_a_helper_that_is_there_is_not_started(tmp_path):
    program = tmp_path / "docker-credential-pass"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    found = look_at_credentials(docker(tmp_path, '{"credsStore": "pass"}'))
    assert (found.store, found.helper_problem) == ("pass", None)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'{{"auths": {{"nvcr.io": "{CANARY}"', "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("[" * 100_000, "it is not JSON"),
        ('{"auths": [1], "credHelpers": "x", "credsStore": {}}', None),
        ('{"auths": {"nvcr.io": null, "ghcr.io": "text"}, "credHelpers": {"a": null}}', None),
        ("", None),
    ],
)
def test_a_configuration_of_another_shape(tmp_path, text, problem):
    found = look_at_credentials(docker(tmp_path, text))
    assert found.config_problem == problem
    assert found.plaintext == () and found.helper_problem is None and found.store is None


@pytest.mark.parametrize(("kind", "problem"), [("pipe", "it is not a regular file"), ("sparse", "it is too large")])
def test_a_configuration_that_is_no_ordinary_file_is_not_read(tmp_path, kind, problem):
    if kind == "pipe":
        os.mkfifo(tmp_path / "config.json")
    else:
        with (tmp_path / "config.json").open("wb") as file:
            file.truncate(2**40)
    found = look_at_credentials({"DOCKER_CONFIG": str(tmp_path), "PATH": ""})
    assert (found.config_problem, found.logins) == (problem, ())


def test_names_of_registries_are_valid_text(tmp_path):
    document = {"auths": {"\ud800.example.com": {}}, "credsStore": "\ud800"}
    found = look_at_credentials(docker(tmp_path, json.dumps(document)))
    json.dumps(to_plain(found), ensure_ascii=False).encode("utf-8")
    assert found.logins == ("\\ud800.example.com",)


def test_no_value_is_kept(tmp_path):
    text = json.dumps({"auths": {"nvcr.io": {"auth": "Y2FuYXJ5OmNhbmFyeQ==", "password": "canary-password"}}})
    file = tmp_path / "key"
    file.write_text(LEGACY)
    environment = {
        **docker(tmp_path, text),
        "NGC_API_KEY_FILE": str(file),
        "HF_TOKEN": "hf_canary0123",
        "HTTPS_PROXY": "http://user:proxy-canary@proxy.corp:3128",
        "ALL_PROXY": "us@er:proxy-canary@proxy.corp:3128",
    }
    seen = json.dumps([to_plain(look_at_credentials(environment)), look_at_proxies(environment)])
    for secret in ("Y2FuYXJ5", "canary-password", LEGACY, "hf_canary", "proxy-canary"):
        assert secret not in seen
    assert "proxy.corp:3128" in seen


# proxies


def test_lower_case_wins_also_where_it_is_empty():
    both = {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1", "http_proxy": "", "HTTP_PROXY": "http://up:1"}
    assert look_at_proxies(both) == {"HTTPS_PROXY": "http://low:1"}
    assert proxies.proxy_for("https://a.test", both) == "http://low:1"
    assert proxies.proxy_for("http://a.test", both) is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "https://hub.test", False),
        ("*", "https://hub.test", True),
        ("hub.test", "https://hub.test", True),
        ("hub.test", "https://cdn.hub.test", True),
        (".hub.test", "https://hub.test", True),
        ("*.hub.test", "https://cdn.hub.test", True),
        ("hub.test", "https://nohub.test", False),
        ("other.test, HUB.test", "https://hub.TEST", True),
        ("hub.test:8443", "https://hub.test:8443", True),
        ("hub.test:8443", "https://hub.test", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("127.0.0.1", "https://127.0.0.1:5000", True),
        ("::1", "https://[::1]:5000", True),
        ("localhost,127.0.0.1", "https://hub.test", False),
        (",,", "https://hub.test", False),
    ],
)
def test_no_proxy(no_proxy, url, direct):
    environment = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    assert (proxies.proxy_for(url, environment) is None) is direct


def test_all_proxy_stands_in_for_the_others():
    assert proxies.proxy_for("https://a.test", {"ALL_PROXY": "p:1"}) == "p:1"
    assert proxies.proxy_for("https://a.test", {"ALL_PROXY": "p:1", "HTTPS_PROXY": "q:1"}) == "q:1"


@pytest.mark.parametrize(
    ("value", "scheme", "name"),
    [
        ("http://proxy.corp:3128", "http", "proxy.corp:3128"),
        ("proxy.corp:3128", "http", "proxy.corp:3128"),
        ("https://proxy.corp", "https", "proxy.corp:443"),
        ("http://[::1]:8080/", "http", "::1:8080"),
    ],
)
def test_forms_of_a_proxy(value, scheme, name):
    found = proxies.parse(value)
    assert (found.scheme, found.name, found.login) == (scheme, name, None)


def test_the_login_of_a_proxy_is_read_and_never_shown():
    found = proxies.parse("http://user:p%40ss-canary@proxy.corp:3128")
    assert found.login is not None and found.login.reveal() == "dXNlcjpwQHNzLWNhbmFyeQ=="
    assert "canary" not in repr(found) and "dXNl" not in repr(found)


@pytest.mark.parametrize(
    "value", ["socks5://user:canary@p:1", "http://user:canary@", "http://user:canary@h:port", "http://a b"]
)
def test_what_is_no_proxy_is_not_repeated(value):
    with pytest.raises(ValueError, match="it") as caught:
        proxies.parse(value)
    assert "canary" not in str(caught.value)


# CA bundles


def test_bundles_that_the_environment_names(tmp_path):
    bundle, empty, folder, bare = (tmp_path / name for name in ("ca.pem", "empty.pem", "certs", "bare"))
    bundle.write_text(f"# a comment\n{PEM}")
    empty.touch()
    folder.mkdir()
    (folder / "1a2b3c4d.0").write_text(PEM)
    bare.mkdir()
    (bare / "readme").write_text("nothing")
    found = look_at_authorities(
        {
            "REQUESTS_CA_BUNDLE": str(bundle),
            "CURL_CA_BUNDLE": str(empty),
            "SSL_CERT_FILE": str(tmp_path / "gone.pem"),
            "SSL_CERT_DIR": f"{folder}:{bare}",
            "AWS_CA_BUNDLE": "",
        }
    )
    assert found == (
        CaFacts("REQUESTS_CA_BUNDLE", str(bundle)),
        CaFacts("CURL_CA_BUNDLE", str(empty), "no certificate is in it"),
        CaFacts("SSL_CERT_FILE", str(tmp_path / "gone.pem"), "there is no such file or folder"),
        CaFacts("SSL_CERT_DIR", str(folder)),
        CaFacts("SSL_CERT_DIR", str(bare), "no certificate is in this folder"),
    )
    assert look_at_authorities({}) == ()


def test_a_bundle_that_may_not_be_read(tmp_path, monkeypatch):
    bundle = tmp_path / "ca.pem"
    bundle.write_text(PEM)

    def refused(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    (found,) = look_at_authorities({"SSL_CERT_FILE": str(bundle)})
    assert found.problem == "this user may not read it"

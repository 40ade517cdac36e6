"""The three places where docker keeps logins, read and written as the docker CLI does."""

import base64
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import credentials, dockerconfig
from nimctl.registry.credentials import logout, stored, stored_or_key
from nimctl.registry.login import TOKEN_USER, Login

KEY = Secret("nvapi-canary-0123456789")
LOGIN = Login("$oauthtoken", KEY)


def write(folder: Path, document: object) -> Path:
    path = folder / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def auth(user: str, key: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{key}".encode()).decode()}


def test_no_file_an_empty_file_and_no_entry_are_no_login(tmp_path):
    assert stored("nvcr.io", tmp_path / "none") is None
    assert stored("nvcr.io", tmp_path) is None
    write(tmp_path, "")
    assert stored("nvcr.io", tmp_path) is None
    write(tmp_path, {"auths": {"ghcr.io": auth("a", "b")}})
    assert stored("nvcr.io", tmp_path) is None


@pytest.mark.parametrize("name", ["nvcr.io", "https://nvcr.io", "https://nvcr.io/v2/", "nvcr.io/v1/"])
def test_an_entry_is_found_under_each_name_that_docker_has_used(tmp_path, name):
    write(tmp_path, {"auths": {name: auth("$oauthtoken", KEY.reveal())}})
    assert stored("nvcr.io", tmp_path) == LOGIN
    assert stored("vcr.io", tmp_path) is None


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # the entry of this very name counts, even where it is empty
        ({"auths": {"nvcr.io": {}, "https://nvcr.io/v1/": auth("a", "b")}}, None),
        # with a helper, what the file holds does not count; an empty helper is the file
        (
            {"auths": {"nvcr.io": auth("a", "b")}, "credHelpers": {"nvcr.io": ""}, "credsStore": "none"},
            Login("a", Secret("b")),
        ),
        ({"auths": {"nvcr.io": auth("a", "b")}, "credHelpers": {"https://nvcr.io": "none"}}, Login("a", Secret("b"))),
    ],
)
def test_entries_count_as_for_docker(tmp_path, document, expected):
    """Each as docker 26.1 was seen to do it."""
    write(tmp_path, document)
    assert stored("nvcr.io", tmp_path) == expected


def test_docker_hub_has_a_name_of_its_own(tmp_path):
    write(tmp_path, {"auths": {"https://index.docker.io/v1/": auth("me", "a:b")}})
    assert stored("docker.io", tmp_path) == Login("me", Secret("a:b"))
    write(tmp_path, {"auths": {"index.docker.io": auth("me", "a:b")}})
    assert stored("docker.io", tmp_path) is None, "docker does not find it either"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "u", "password": "p"}, Login("u", Secret("p"))),
        ({"auth": "", "identitytoken": "refresh"}, Login(TOKEN_USER, Secret("refresh"))),
        ({}, None),
        ({"auth": "!!!"}, None),
        ({"auth": base64.b64encode(b"\xff\xfe").decode()}, None),
        ({"auth": base64.b64encode(b"no colon").decode()}, None),
        ({"auth": 5}, None),
        ("text", None),
        (None, None),
    ],
)
def test_entries_of_every_kind(tmp_path, entry, expected):
    write(tmp_path, {"auths": {"nvcr.io": entry}})
    assert stored("nvcr.io", tmp_path) == expected


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"auths": []}', '{"credHelpers": "x"}', "\x00"])
def test_a_file_that_is_not_dockers_is_an_error_and_stays(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(NimctlError) as caught:
        stored("nvcr.io", tmp_path)
    assert (caught.value.id, caught.value.exit_code) == ("credentials-unwritable", 9)
    assert path.read_text() == text


def test_writing_keeps_everything_else_and_closes_the_file(tmp_path):
    before = {"auths": {"ghcr.io": auth("a", "b")}, "HttpHeaders": {"X": "1"}, "credHelpers": {"x.io": "y"}}
    path = write(tmp_path, before)
    path.chmod(0o644)
    dockerconfig.write(tmp_path, dockerconfig.with_login(dockerconfig.read(tmp_path), "nvcr.io", LOGIN))
    after = json.loads(path.read_text())
    assert after.pop("auths") == {**before["auths"], "nvcr.io": auth("$oauthtoken", KEY.reveal())}
    assert after == {"HttpHeaders": {"X": "1"}, "credHelpers": {"x.io": "y"}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored("nvcr.io", tmp_path) == LOGIN
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_new_folder_is_closed_to_others(tmp_path):
    dockerconfig.write(tmp_path / "new", {})
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").symlink_to("../dotfiles/config.json")
    dockerconfig.write(tmp_path / "docker", {"a": 1})
    assert (tmp_path / "docker/config.json").is_symlink()
    assert json.loads((tmp_path / "dotfiles/config.json").read_text()) == {"a": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to other users")
def test_the_owner_keeps_the_file_under_sudo(tmp_path):
    os.chown(tmp_path, 4242, 4242)
    path = dockerconfig.write(tmp_path, {})
    assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4242)


def test_the_folder_is_dockers(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert dockerconfig.config_folder() == tmp_path
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dockerconfig.config_folder() == tmp_path / ".docker"


def test_the_ngc_key_stands_in_for_a_missing_login_to_nvidias_registry_alone(tmp_path):
    environment = {"NGC_API_KEY": KEY.reveal()}
    assert stored_or_key("nvcr.io", tmp_path, environment) == (LOGIN, True)
    assert stored_or_key("nvcr.io", tmp_path, {}) == (None, False)
    assert stored_or_key("ghcr.io", tmp_path, environment) == (None, False)
    assert stored_or_key("nvcr.io.example.com", tmp_path, environment) == (None, False)
    write(tmp_path, {"auths": {"nvcr.io": auth("somebody", "stored")}})
    assert stored_or_key("nvcr.io", tmp_path, environment) == (Login("somebody", Secret("stored")), False)


def variable(**auths: object) -> dict[str, str]:
    return {"DOCKER_AUTH_CONFIG": json.dumps({"auths": auths})}


def test_logins_of_this_process_come_first_and_those_of_others_stay(tmp_path):
    write(tmp_path, {"auths": {"nvcr.io": auth("stored", "s"), "ghcr.io": auth("stored", "s")}})
    environment = {**variable(**{"nvcr.io": auth("job", "j")}), "NGC_API_KEY": KEY.reveal()}
    assert stored_or_key("nvcr.io", tmp_path, environment) == (Login("job", Secret("j")), False)
    assert stored_or_key("ghcr.io", tmp_path, environment) == (Login("stored", Secret("s")), False)
    environment = {
        "DOCKER_AUTH_CONFIG": json.dumps({"credsStore": "x", "auths": {"https://nvcr.io/v1/": auth("a", "b")}})
    }
    assert stored_or_key("nvcr.io", tmp_path, environment) == (Login("a", Secret("b")), False)
    for blank in ({}, {"DOCKER_AUTH_CONFIG": " "}, {"DOCKER_AUTH_CONFIG": "{}"}, variable()):
        assert stored_or_key("nvcr.io", tmp_path, blank) == (Login("stored", Secret("s")), False)


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"auths": []}', '{"auths": "nvapi-canary-0123456789"}'])
def test_logins_of_this_process_that_cannot_be_read_are_an_error(tmp_path, text):
    with pytest.raises(NimctlError) as caught:
        stored_or_key("nvcr.io", tmp_path, {"DOCKER_AUTH_CONFIG": text})
    assert (caught.value.id, caught.value.exit_code) == ("config-invalid", 2)
    assert "DOCKER_AUTH_CONFIG" in caught.value.message
    assert "canary" not in str(caught.value.to_json())


def test_an_identity_token_is_written_as_docker_writes_it(tmp_path):
    token = Login(TOKEN_USER, Secret("refresh"))
    dockerconfig.write(tmp_path, dockerconfig.with_login({}, "nvcr.io", token, "me"))
    entry = json.loads((tmp_path / "config.json").read_text())["auths"]["nvcr.io"]
    assert entry == {"auth": base64.b64encode(b"me:").decode(), "identitytoken": "refresh"}
    assert stored("nvcr.io", tmp_path) == token


def test_a_logout_takes_every_entry_that_would_be_found(tmp_path):
    kept = {"ghcr.io": auth("a", "b"), "xnvcr.io": auth("a", "b")}
    names = ("nvcr.io", "https://nvcr.io", "http://nvcr.io", "https://nvcr.io/v1/", "nvcr.io/v2/")
    write(tmp_path, {"auths": {**{name: auth("u", "k") for name in names}, **kept}, "detachKeys": "ctrl-x"})
    removed = logout("nvcr.io", config_dir=tmp_path, environment={})
    assert (removed.where, removed.warnings) == ((str(tmp_path / "config.json"),), ())
    assert json.loads((tmp_path / "config.json").read_text()) == {"auths": kept, "detachKeys": "ctrl-x"}
    assert stored("nvcr.io", tmp_path) is None


def test_a_login_and_a_logout_are_alone_with_the_file(tmp_path, monkeypatch):
    seen = []

    def spied(name):
        real = getattr(dockerconfig, name)

        def call(folder, *rest):
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.append(f"{name} unlocked")
            except BlockingIOError:
                seen.append(name)
            finally:
                os.close(handle)
            return real(folder, *rest)

        monkeypatch.setattr(dockerconfig, name, call)

    spied("read")
    spied("write")
    monkeypatch.setattr(credentials, "_proven", lambda registry, login: (login, ()))
    credentials.login("r.test", "user", KEY, config_dir=tmp_path)
    assert seen[-2:] == ["read", "write"]
    seen.clear()
    assert logout("r.test", config_dir=tmp_path, environment={}).where
    assert seen == ["read", "write"]


def test_a_logout_without_a_login_changes_nothing(tmp_path):
    assert logout("nvcr.io", config_dir=tmp_path / "none", environment={}).where == ()
    assert not (tmp_path / "none").exists()
    path = write(tmp_path, '{ "auths" : { "ghcr.io": {} } }')
    assert logout("nvcr.io", config_dir=tmp_path, environment={}).where == ()
    assert path.read_text() == '{ "auths" : { "ghcr.io": {} } }'


def test_a_logout_of_docker_hub_by_any_of_its_names(tmp_path):
    for name in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        write(tmp_path, {"auths": {"https://index.docker.io/v1/": auth("a", "b")}})
        assert logout(name, config_dir=tmp_path, environment={}).where
        assert stored("docker.io", tmp_path) is None


def test_a_logout_tells_what_still_opens_the_registry(tmp_path):
    environment = {**variable(**{"nvcr.io": auth("a", "b")}), "NGC_API_KEY": KEY.reveal()}
    shell, key = logout("nvcr.io", config_dir=tmp_path, environment=environment).warnings
    assert "DOCKER_AUTH_CONFIG" in shell
    assert "NGC key" in key
    assert logout("ghcr.io", config_dir=tmp_path, environment=environment).warnings == ()
    assert (
        "cannot be used" in logout("ghcr.io", config_dir=tmp_path, environment={"DOCKER_AUTH_CONFIG": "{"}).warnings[0]
    )
    with pytest.raises(NimctlError) as caught:
        logout("https://nvcr.io", config_dir=tmp_path, environment={})
    assert caught.value.id == "usage"

"""Fault: the key is good, but the place where it is to be kept is not; and the key must show up nowhere else."""

import base64
import json
import os
import stat
import traceback
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.registry import helpers
from nimctl.registry.credentials import login, logout, stored
from nimctl.registry.entitlement import resolve_digest
from nimctl.registry.login import TOKEN_USER, Login
from nimctl.registry.reference import parse
from tests.lib.little_registry import TOKEN, USER, Answer, errors, little_registry
from tests.lib.users import as_user, needs_root, open_folder

GOOD = """\
echo "$0 $@" >> "$STORE/argv"
case $1 in
  store) cat > "$STORE/kept" ;;
  get)
    cat > /dev/null
    [ -f "$STORE/kept" ] || { echo "credentials not found in native keychain"; exit 1; }
    cat "$STORE/kept" ;;
  erase) cat > /dev/null; [ -f "$STORE/kept" ] || exit 1; rm "$STORE/kept" ;;
esac
"""


@pytest.fixture
def registry():
    with little_registry() as running:
        yield running


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Install a script as docker-credential-NAME."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STORE", str(tmp_path))

    def install(script: str, name: str = "test") -> None:
        path = programs / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)

    return install


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "docker"
    path.mkdir()
    return path


def configure(folder: Path, **document: object) -> str:
    text = json.dumps(document)
    (folder / "config.json").write_text(text)
    return text


def test_without_a_helper_the_key_is_in_the_file_and_that_is_said(registry, folder):
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert (done.where, done.plaintext) == (str(folder / "config.json"), True)
    assert "unencrypted" in done.warnings[-1]
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert stored(registry.address, folder) == Login(USER, Secret(registry.key))


@pytest.mark.parametrize("kind", ["credsStore", "credHelpers"])
def test_with_a_helper_the_key_is_in_the_helper_alone(registry, folder, helper, tmp_path, kind):
    helper(GOOD)
    configure(folder, **{kind: "test" if kind == "credsStore" else {registry.address: "test"}})
    assert stored(registry.address, folder) is None
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert (done.where, done.plaintext, done.warnings) == ("docker-credential-test", False, ())
    assert json.loads((tmp_path / "kept").read_text()) == {
        "ServerURL": registry.address,
        "Username": USER,
        "Secret": registry.key,
    }
    assert json.loads((folder / "config.json").read_text())["auths"] == {registry.address: {}}
    assert stored(registry.address, folder) == Login(USER, Secret(registry.key))
    assert registry.key not in (tmp_path / "argv").read_text()


def test_a_login_in_the_file_is_not_found_beside_a_helper_and_is_replaced_by_it(registry, folder, helper):
    """As for docker: a credsStore that is written over old logins hides them."""
    helper(GOOD)
    login(registry.address, USER, Secret(registry.key), config_dir=folder)
    document = json.loads((folder / "config.json").read_text())
    configure(folder, **document, credsStore="test")
    assert stored(registry.address, folder) is None
    login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert json.loads((folder / "config.json").read_text())["auths"] == {registry.address: {}}


@pytest.mark.parametrize("helpers_own", [True, False])
def test_an_identity_token_is_kept_in_place_of_the_key(registry, folder, helper, tmp_path, helpers_own):
    registry.token = lambda r: Answer(200, json.dumps({"token": TOKEN, "refresh_token": "identity-canary"}).encode())
    if helpers_own:
        helper(GOOD)
        configure(folder, credsStore="test")
    login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert registry.seen[1].query["offline_token"] == ["true"]
    assert stored(registry.address, folder) == Login(TOKEN_USER, Secret("identity-canary"))
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or registry.key.encode() not in file.read_bytes()


def test_a_logout_makes_the_helper_forget(registry, folder, helper, tmp_path):
    helper(GOOD)
    configure(folder, credsStore="test")
    login(registry.address, USER, Secret(registry.key), config_dir=folder)
    removed = logout(registry.address, config_dir=folder, environment={})
    assert removed.where == ("docker-credential-test",)
    assert not (tmp_path / "kept").exists()
    assert json.loads((folder / "config.json").read_text()) == {"auths": {}, "credsStore": "test"}
    assert logout(registry.address, config_dir=folder, environment={}).where == ()


@pytest.mark.parametrize("verb", ["get", "erase"])
def test_a_helper_that_does_not_forget_is_an_error_and_the_entry_stays(registry, folder, helper, verb):
    helper(f'[ "$1" = {verb} ] && {{ cat; exit 4; }}\n{GOOD}')
    before = configure(folder, auths={registry.address: {}}, credsStore="test")
    (folder.parent / "kept").write_text(json.dumps({"Username": USER, "Secret": "nvapi-canary"}))
    with pytest.raises(NimctlError) as caught:
        logout(registry.address, config_dir=folder, environment={})
    assert (caught.value.id, caught.value.cause[:24]) == ("credentials-unwritable", "it ended with code 4; wh")
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("installed", "offer"),
    [
        ((), None),
        (("ecr-login",), None),
        (("secretservice",), "secretservice"),
        (("secretservice", "pass"), "secretservice"),
        (("secretservice", "pass", "#pass"), "pass"),
    ],
)
def test_a_keyring_that_is_installed_is_offered_and_nothing_is_changed(
    registry, folder, helper, monkeypatch, tmp_path, installed, offer
):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in installed:
        helper("exit 9", name)
        if name.startswith("#"):
            (tmp_path / f"bin/docker-credential-{name}").rename(tmp_path / "bin" / name[1:])
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert done.offer == (f'"credHelpers": {{"{registry.address}": "{offer}"}}' if offer else None)
    assert (f"docker-credential-{offer} is installed" if offer else "none is installed") in done.warnings[-1]
    assert list(json.loads((folder / "config.json").read_text())) == ["auths"]


def test_where_nothing_is_configured_the_keyring_of_this_host_is_used_as_docker_does(registry, folder, helper):
    helper(GOOD, "secretservice")
    helper("exit 0", "ecr-login")
    assert stored(registry.address, folder) is None
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert (done.where, done.plaintext, done.warnings) == ("docker-credential-secretservice", False, ())
    written = json.loads((folder / "config.json").read_text())
    assert written == {"auths": {registry.address: {}}, "credsStore": "secretservice"}
    (folder / "config.json").unlink()
    assert stored(registry.address, folder) == Login(USER, Secret(registry.key))
    assert logout(registry.address, config_dir=folder, environment={}).where == ("docker-credential-secretservice",)


def test_a_keyring_that_nobody_named_and_that_does_not_work_keeps_nobody_from_anything(registry, folder, helper):
    helper("cat; echo; echo no D-Bus; exit 1", "secretservice")
    assert stored(registry.address, folder) is None
    assert logout(registry.address, config_dir=folder, environment={}).where == ()
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert done.plaintext
    assert "no keyring service answers" in done.warnings[0]
    assert registry.key not in str(done)
    assert list(json.loads((folder / "config.json").read_text())) == ["auths"]


def test_a_disk_that_is_full_is_found_before_the_helper_is_told(registry, folder, helper, tmp_path, monkeypatch):
    helper(GOOD)
    before = configure(folder, credsStore="test")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert "No space left" in caught.value.cause
    assert not (tmp_path / "kept").exists()
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_text() == before


def test_a_helper_for_one_registry_outweighs_the_store_for_all(registry, folder, helper):
    helper("exit 9", "all")
    helper(GOOD, "one")
    configure(folder, credsStore="all", credHelpers={registry.address: "one"})
    assert login(registry.address, USER, Secret(registry.key), config_dir=folder).where == "docker-credential-one"
    with pytest.raises(NimctlError):
        stored("nvcr.io", folder)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("cat >&2; exit 1", "code 1"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("sleep 60", "did not answer within"),
        ("sleep 60 & exec sleep 60", "did not answer within"),
        ("cat /dev/zero", "more than 1048576 bytes"),
        ("cat /dev/zero >&2", "more than 1048576 bytes"),
        ("cat; echo not implemented; exit 1", "fetches those of one cloud"),
        ("echo 'gpg: decryption failed: No secret key'; exit 2", "gpg could not use its secret key"),
        ("echo 'error getting D-Bus session'; cat; exit 1", "no keyring service answers"),
        (None, "no such program"),
    ],
)
def test_a_helper_that_fails_to_store_ends_in_an_error_not_in_a_file(
    registry, folder, helper, monkeypatch, script, cause
):
    monkeypatch.setattr(helpers, "TIMEOUT", 0.5)
    if script is not None:
        helper(script)
    before = configure(folder, credsStore="test")
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert (caught.value.id, caught.value.exit_code) == ("credentials-unwritable", 9)
    assert cause in caught.value.cause
    assert registry.key not in str(caught.value.to_json())
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize(
    "script",
    [
        "echo junk",
        "echo []",
        "echo '{}'",
        """echo '{"Username": 5, "Secret": "nvapi-canary-0123456789"}'""",
        "printf '\\377\\376'",
        "true",
        "sleep 60",
        "echo broken >&2; exit 3",
        "echo nvapi-canary-0123456789 >&2; exit 3",
        "echo secret nvapi-canary-0123456789; kill -SEGV $$",
        "cat /dev/urandom",
        "echo '{'; cat /dev/zero",
        "yes '[' | tr -d '\\n' | head -c 100000",
    ],
)
def test_a_helper_that_answers_junk_is_named(folder, helper, monkeypatch, script):
    monkeypatch.setattr(helpers, "TIMEOUT", 0.5)
    helper(script)
    configure(folder, credsStore="test")
    with pytest.raises(NimctlError) as caught:
        stored("nvcr.io", folder)
    assert caught.value.id == "credentials-unwritable"
    assert "docker-credential-test" in caught.value.message
    assert "nvapi-canary" not in str(caught.value.to_json())


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a b", "-x", ""])
def test_a_helpers_name_is_never_a_path(registry, folder, name, helper):
    configure(folder, credHelpers={registry.address: name})
    if name == "":
        assert stored(registry.address, folder) is None
        return
    with pytest.raises(NimctlError) as caught:
        stored(registry.address, folder)
    assert caught.value.id == "credentials-unwritable"
    assert "is not a program name" in caught.value.message


def test_a_broken_configuration_is_found_before_the_key_is_sent(registry, folder):
    (folder / "config.json").write_text("{ broken")
    with pytest.raises(NimctlError) as caught:
        login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert caught.value.id == "credentials-unwritable"
    assert (folder / "config.json").read_text() == "{ broken"
    assert registry.seen == []


@needs_root
def test_a_folder_that_may_not_be_written_keeps_the_old_file(registry):
    with open_folder() as folder:
        before = configure(folder, auths={})
        with pytest.raises(NimctlError) as caught:
            as_user(lambda: login(registry.address, USER, Secret(registry.key), config_dir=folder), gid=12345)
        assert caught.value.id == "credentials-unwritable"
        assert [p.name for p in folder.iterdir()] == ["config.json"]
        assert (folder / "config.json").read_text() == before
        (folder / "config.json").chmod(0o600)
        with pytest.raises(NimctlError) as caught:
            as_user(lambda: stored("nvcr.io", folder), gid=12345)
        assert caught.value.id == "credentials-unwritable"


def test_a_legacy_key_is_warned_about_only_where_it_matters(registry, folder, monkeypatch):
    registry.key = "0123456789abcdef"
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert not any("legacy API keys" in warning for warning in done.warnings)
    monkeypatch.setattr("nimctl.registry.credentials.NVIDIA", registry.address)
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert "legacy API keys" in done.warnings[0]
    assert registry.key not in str(done)


def test_a_registry_that_asks_for_no_login_is_said_to_have_checked_nothing(registry, folder):
    registry.ping = lambda _: Answer()
    done = login(registry.address, USER, Secret(registry.key), config_dir=folder)
    assert "could not be checked" in done.warnings[0]


def _echo(request):
    """Say back whatever was sent, as a careless server does."""
    return Answer(403, errors("DENIED", f"{request.authorization} {request.path} {request.body!r}"))


@pytest.mark.parametrize("place", ["token", "manifest", "ping"])
@pytest.mark.parametrize("key", ["nvapi-canary-0123456789", "plain-canary-key", "0canary0"])
def test_the_key_is_in_no_text_of_any_failure(registry, folder, place, key):
    registry.key = key
    setattr(registry, place, lambda r: _echo(r) if r.authorization else registry.good_ping(r))
    encoded = base64.b64encode(f"{USER}:{key}".encode()).decode()
    credentials, texts = Login(USER, Secret(key)), []
    for action in (
        lambda: login(registry.address, USER, Secret(key), config_dir=folder),
        lambda: resolve_digest(parse(f"{registry.address}/nim/a/b:1"), credentials),
        lambda: resolve_digest(parse(f"{registry.address}/a/b:1"), credentials),
    ):
        try:
            texts.append(repr(action()))
        except NimctlError as error:
            texts += [str(error.to_json()), repr(error), "".join(traceback.format_exception(error))]
    texts += [repr(credentials), str(credentials), f"{credentials}"]
    for text in texts:
        assert key not in text
        assert encoded not in text
        assert encoded.rstrip("=") not in text


def test_a_server_that_says_the_encoded_key_without_its_name(registry):
    registry.manifest = lambda r: Answer(403, errors("DENIED", f"got {registry.basic.removeprefix('Basic ')} from you"))
    with pytest.raises(NimctlError) as caught:
        resolve_digest(parse(f"{registry.address}/a/b:1"), Login(USER, Secret(registry.key)))
    assert "got *** from you" in caught.value.evidence[0]

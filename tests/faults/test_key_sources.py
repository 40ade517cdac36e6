"""Fault: the key is not where a login would have put it: only in the environment, in a broken file, or nowhere."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nimctl.cli import acquire, key
from nimctl.cli.config import load
from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.secret import Secret
from nimctl.launch.docker.pull import PullPlan
from nimctl.registry import credentials, denial
from nimctl.registry.login import Login
from nimctl.render import Output
from tests.conftest import Nimctl
from tests.lib.little_registry import USER, Answer, little_registry
from tests.lib.remote_images import Shelf, digest, make_image

NIM = "kimi-k2.5-turbo"


class Engine:
    """Remembers what it was asked to pull."""

    platform = "linux/amd64"
    facts = DockerFacts("ok", endpoint="tcp://elsewhere", containerd_store=True)

    def __init__(self) -> None:
        self.pulled: list[tuple[str, str | None, Login | None]] = []

    def inspect_image(self, reference: str) -> None:
        return None

    inspect_image_raw = inspect_image

    def pull(self, plan: PullPlan, login: Login | None, **_: Any) -> Any:
        self.pulled.append((plan.identity.reference, plan.identity.digest, login))
        return SimpleNamespace(id=plan.identity.config)


@pytest.fixture
def nvidia(monkeypatch, tmp_path):
    """A registry that takes one key, in the place of NVIDIA's, and a user without any login."""
    for name in ("NGC_CLI_API_KEY", "NGC_API_KEY", "NGC_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with little_registry() as registry:
        registry.token = lambda asked: registry.good_token(asked) if asked.authorization else Answer(401)
        monkeypatch.setattr(credentials, "NVIDIA", registry.address)
        monkeypatch.setattr(denial, "NVIDIA", registry.address)
        shelf = Shelf()
        shelf.put("1.7.0-variant", make_image())
        registry.content = shelf.content
        yield registry


@pytest.mark.parametrize("variable", ["NGC_CLI_API_KEY", "NGC_API_KEY", "NGC_API_KEY_FILE"])
def test_a_pull_without_a_login_uses_the_key_of_the_environment(nvidia, monkeypatch, tmp_path, capsys, variable):
    (tmp_path / "key").write_text(nvidia.key)
    monkeypatch.setenv(variable, str(tmp_path / "key") if variable.endswith("_FILE") else nvidia.key)
    engine, reference = Engine(), f"{nvidia.address}/nim/moonshotai/kimi-k2.5:1.7.0-variant"
    held = acquire.pull_image(reference, engine, Output.choose("pull"), load({}))  # type: ignore[arg-type]
    assert held.id == digest(make_image().config)
    assert engine.pulled == [(reference, digest(make_image().manifest), Login(USER, Secret(nvidia.key)))]
    told = capsys.readouterr().out
    assert "pulling with the NGC key of the environment" in told and nvidia.key not in told
    assert not (tmp_path / "docker").exists(), "a key that was only lent is not stored"


def test_a_pull_without_login_and_key_says_what_is_missing(nvidia):
    with pytest.raises(NimctlError) as caught:
        acquire.pull_image(f"{nvidia.address}/nim/a/b:1", Engine(), Output.choose("pull"), load({}))  # type: ignore[arg-type]
    assert caught.value.id == "key-missing"
    assert "NGC_API_KEY is not set" in caught.value.cause and "export NGC_API_KEY" in caught.value.fix


def test_login_takes_the_key_of_a_file(nvidia, monkeypatch, tmp_path):
    (tmp_path / "key").write_text(f"{nvidia.key}\n")
    monkeypatch.setenv("NGC_API_KEY_FILE", str(tmp_path / "key"))
    assert key.read_key("nvcr.io", from_stdin=False) == Secret(nvidia.key)


class Stdin:
    """A stdin with these bytes, or a terminal."""

    def __init__(self, data: bytes | None) -> None:
        self.buffer, self._terminal = io.BytesIO(data or b""), data is None

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"nvapi-canary-0123456789\n", "nvapi-canary-0123456789"),
        (b"  nvapi-canary-0123456789\r\n\n", "nvapi-canary-0123456789"),
        (b"two\nlines\n", "two\nlines"),  # refused later: half a file is no key
    ],
)
def test_a_key_from_stdin_is_all_of_it(monkeypatch, data, expected):
    monkeypatch.setattr(key.sys, "stdin", Stdin(data))
    assert key.read_key("nvcr.io", from_stdin=True) == Secret(expected)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00canary", b"x" * 70_000])
def test_what_is_no_key_on_stdin_is_refused(monkeypatch, data):
    monkeypatch.setattr(key.sys, "stdin", Stdin(data))
    with pytest.raises(NimctlError) as caught:
        key.read_key("nvcr.io", from_stdin=True)
    assert (caught.value.id, caught.value.exit_code) == ("key-refused", 4)
    assert "canary" not in str(caught.value.to_json())


@pytest.mark.parametrize("from_stdin", [True, False])
def test_a_key_that_is_typed_is_not_shown(nvidia, monkeypatch, from_stdin):
    asked = []

    def prompt(words: str, *, hide_input: bool) -> str:
        asked.append((words, hide_input))
        return f" {nvidia.key} "

    monkeypatch.setattr(key.sys, "stdin", Stdin(None))
    monkeypatch.setattr(key.typer, "prompt", prompt)
    assert key.read_key("nvcr.io", from_stdin=from_stdin) == Secret(nvidia.key)
    assert asked == [("API key", True)]


def test_in_and_out_again_as_documents_and_never_the_key(nimctl: Nimctl, bare_host, home: Path):
    with little_registry() as registry:
        job = json.dumps({"auths": {registry.address: {"auth": "eDp5"}}})
        env = {**bare_host, "DOCKER_CONFIG": str(home / "d"), "DOCKER_AUTH_CONFIG": job, "PATH": str(home)}
        into = nimctl("login", registry.address, "--password-stdin", "--json", env=env, stdin=registry.key)
        assert (into.code, into.document["schema"], into.document["plaintext"]) == (0, "nimctl.login/1", True)
        assert into.document["offer"] is None
        assert "comes before" in into.document["warnings"][0]
        out = nimctl("logout", registry.address, "--json", env=env)
        again = nimctl("logout", registry.address, "--quiet", env=env)
        assert registry.key not in into.stdout + into.stderr + out.stdout + out.stderr
    assert out.document["removed"] == [str(home / "d/config.json")]
    assert "DOCKER_AUTH_CONFIG" in out.document["warnings"][0]
    assert (again.code, again.stdout) == (0, "")
    assert json.loads((home / "d/config.json").read_text()) == {"auths": {}}


def finding(done: Any) -> Any:
    (found,) = [f for f in done.document["findings"] if f["check"] == "key"]
    return found


def test_a_login_alone_does_not_pass_for_an_image_that_needs_the_key(nimctl: Nimctl, bare_host, home: Path):
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {"nvcr.io": {"auth": "eDp5"}}}))
    env = {**bare_host, "DOCKER_CONFIG": str(home / ".docker")}
    without = nimctl("doctor", NIM, "--only", "key", "--json", env=env)
    assert (without.code, finding(without)["id"]) == (3, "key-missing")
    assert "can be pulled" in finding(without)["title"]
    given = nimctl("doctor", NIM, "--only", "key", "--json", env={**env, "NGC_CLI_API_KEY": "nvapi-canary-0123"})
    assert (given.code, finding(given)["verdict"]) == (0, "pass")


@pytest.mark.parametrize(("content", "error_id", "code"), [(None, "config-invalid", 2), ("\n", "key-missing", 4)])
@pytest.mark.parametrize("verb", [("login",), ("run", NIM, "--gpus", "8", "--dry-run")])
def test_a_broken_key_file_is_one_clear_error(nimctl: Nimctl, bare_host, home: Path, verb, content, error_id, code):
    if content is not None:
        (home / "key").write_text(content)
    done = nimctl(*verb, "--json", env={**bare_host, "NGC_API_KEY_FILE": str(home / "key")}, stdin="")
    assert (done.error_id, done.code) == (error_id, code), done.stderr
    assert "NGC_API_KEY_FILE" in done.stderr and "Traceback" not in done.stderr


def test_a_broken_key_file_does_not_matter_to_a_model_that_needs_no_key(nimctl: Nimctl, bare_host, home: Path):
    env = {**bare_host, "NGC_API_KEY_FILE": str(home / "none"), "HF_TOKEN_FILE": str(home / "none")}
    done = nimctl("run", "demo", "--gpus", "none", "--runtime", "process", "--dry-run", "--json", env=env)
    assert done.code == 0, done.stderr

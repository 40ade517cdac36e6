"""A login is docker's and nimctl's alike, whoever made it and wherever it is kept; and so is its end."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.secret import Secret
from nimctl.registry.credentials import login, logout, stored_or_key
from nimctl.registry.entitlement import probe
from nimctl.registry.reference import parse
from tests.conftest import Nimctl
from tests.lib import lab
from tests.lib.keyring import held, keyring
from tests.lib.lab import engine, front
from tests.lib.lab.paths import paths
from tests.lib.lab.push import USER

pytestmark = pytest.mark.lab

NAME = "nim/shared/login:1"
# `default`: nothing is configured, and docker uses the keyring that it finds
KINDS = ("plain", "default", "credsStore", "credHelpers", "identity")
Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def image() -> str:
    lab.push_image(NAME)
    return f"{lab.registry_info().address}/{NAME}"


@pytest.fixture(scope="module")
def ring() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="ring-") as folder, keyring(Path(folder) / "r") as environment:
        yield environment


@pytest.fixture
def docker(ring: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Docker:
    """docker with a configuration of its own, in the shell of the keyring, which is this process's too."""
    for name, value in ring.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    environment = {**os.environ, **engine.client_environment(paths()), **ring}

    def run(config: Path, *words: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        argv = [str(paths().unpacked / "usr/bin/docker"), "--config", str(config), *words]
        return subprocess.run(
            argv, env=environment, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def configured(folder: Path, kind: str) -> Path:
    folder.mkdir()
    address = lab.registry_info().address
    settings: dict[str, Any] = {"credsStore": {"credsStore": "pass"}, "credHelpers": {"credHelpers": {address: "pass"}}}
    if kind != "default":
        other = {"auths": {"other.invalid": {"auth": "YTpi"}}}
        (folder / "config.json").write_text(json.dumps(settings.get(kind, other)))
    return folder


def user(kind: str) -> str:
    return front.IDENTITY_USER if kind == "identity" else USER


def opens(image: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What nimctl is told with the login that it finds."""
    wanted = parse(image)
    found, _ = stored_or_key(wanted.registry, folder, environment or {})
    return probe(wanted, found, "linux/amd64").verdict


@pytest.mark.parametrize("kind", KINDS)
def test_docker_logs_in_nimctl_pulls_and_logs_out(tmp_path, docker, image, ring, kind):
    registry, folder = lab.registry_info(), configured(tmp_path / "docker", kind)
    assert opens(image, folder) == "key-missing"
    done = docker(folder, "login", "-u", user(kind), "--password-stdin", registry.address, text=registry.key)
    assert done.returncode == 0, done.stderr
    assert opens(image, folder) == "granted"
    assert logout(registry.address, config_dir=folder, environment={}).where
    refused = docker(folder, "pull", image)
    assert refused.returncode != 0
    assert "denied" in refused.stderr
    assert held(ring) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nimctl_logs_in_docker_pulls_and_logs_out(tmp_path, docker, image, ring, kind):
    registry, folder = lab.registry_info(), configured(tmp_path / "nimctl", kind)
    done = login(registry.address, user(kind), Secret(registry.key), config_dir=folder)
    assert done.plaintext == (kind in ("plain", "identity"))
    assert len(held(ring)) == (0 if done.plaintext else 1)
    pulled = docker(folder, "pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert docker(folder, "logout", registry.address).returncode == 0
    assert opens(image, folder) == "key-missing"
    assert held(ring) == []


@pytest.mark.parametrize("kind", KINDS)
def test_both_leave_the_same_file(tmp_path, docker, kind):
    registry, left = lab.registry_info(), []
    for name in ("docker", "nimctl"):
        folder = configured(tmp_path / name, kind)
        if name == "docker":
            docker(folder, "login", "-u", user(kind), "--password-stdin", registry.address, text=registry.key)
        else:
            login(registry.address, user(kind), Secret(registry.key), config_dir=folder)
        left.append(json.loads((folder / "config.json").read_text()))
        logout(registry.address, config_dir=folder, environment={})
    assert left[0] == left[1]


def test_a_job_s_own_login_opens_the_registry_and_is_written_nowhere(tmp_path, image):
    registry = lab.registry_info()
    login(registry.address, USER, Secret(registry.key), config_dir=tmp_path)
    job = {"DOCKER_AUTH_CONFIG": (tmp_path / "config.json").read_text()}
    assert opens(image, tmp_path / "none", job) == "granted"
    assert not (tmp_path / "none").exists()


def test_an_identity_token_pulls_through_the_daemon(tmp_path, docker, image, host, nimctl: Nimctl):
    registry, folder = lab.registry_info(), configured(tmp_path / "docker", "identity")
    docker(folder, "login", "-u", front.IDENTITY_USER, "--password-stdin", registry.address, text=registry.key)
    lab.docker("image", "rm", "--force", image)
    pulled = nimctl("pull", "--image", image, "--json", env={**host("none"), "DOCKER_CONFIG": str(folder)})
    assert pulled.code == 0, pulled.stderr
    lab.docker("image", "rm", "--force", image)

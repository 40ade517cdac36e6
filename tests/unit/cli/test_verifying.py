"""`nimctl verify` with signatures from a folder: nobody is asked where it is known which image is meant."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nimctl.cli import config as configuration
from nimctl.cli.proofs.kept import keep
from nimctl.cli.proofs.verifying import Given, verify
from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.signatures import write_materials
from nimctl.launch.docker import Engine, ImageInfo
from nimctl.registry.manifests import digest_of
from nimctl.render import Output
from nimctl.trust import keys
from nimctl.trust.signing import sign_image

NAME = "registry.test/org/tiny"
MANIFEST = json.dumps({"config": {"digest": "sha256:" + "c" * 64}}).encode()
DIGEST = digest_of(MANIFEST)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """A key to trust and a folder with its signature of the image; no registry and no daemon answer."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    def refuse(*_: object) -> None:
        raise OSError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    private, public = keys.generate(tmp_path / "k", None)
    write_materials(tmp_path / "trust", sign_image(keys.read_private(private, None), NAME, DIGEST))
    return Given(keys=(public,), signatures=tmp_path / "trust")


def verified(reference: str, given: Given, capsys: pytest.CaptureFixture[str]) -> Mapping[str, Any]:
    verify(reference, given, configuration.load({}), Output.choose("verify", as_json=True))
    document: Mapping[str, Any] = json.loads(capsys.readouterr().out)["image"]
    return document


def holding(monkeypatch: pytest.MonkeyPatch, *digests: str) -> None:
    """An engine that has the image, under these digests of registries."""
    image = ImageInfo("sha256:" + "c" * 64, digests, 1, "amd64", None, {}, "linux")
    engine = SimpleNamespace(inspect_image=lambda _: image, close=lambda: None)
    monkeypatch.setattr(Engine, "connect", lambda: engine)


def test_a_digest_says_which_image_is_meant(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    found = verified(f"{NAME}@{DIGEST}", given, capsys)
    assert (found["signature"]["verdict"], found["digest"]) == ("good", DIGEST)
    with pytest.raises(SystemExit) as raised:
        verify(f"{NAME}@sha256:{'0' * 64}", given, configuration.load({}), Output.choose("verify", quiet=True))
    assert raised.value.code == 5


def test_so_does_the_engine_that_has_it(
    given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holding(monkeypatch, f"{NAME}@{DIGEST}")
    assert verified(f"{NAME}:1", given, capsys)["signature"]["verdict"] == "good"


def test_an_image_that_was_loaded_is_known_by_the_manifest_that_was_kept(
    given: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holding(monkeypatch)
    with pytest.raises(NimctlError, match="image-pull-failed"):  # nothing here says of what it would be signed
        verify(f"{NAME}:1", given, configuration.load({}), Output.choose("verify", quiet=True))
    keep(ImageIdentity(NAME, DIGEST, DIGEST, "sha256:" + "c" * 64, "linux/amd64"), (), [MANIFEST])
    assert verified(f"{NAME}:1", given, capsys)["signature"]["verdict"] == "good"


def test_without_daemon_and_digest_the_registry_says_which(given: Given) -> None:
    with pytest.raises(NimctlError, match="image-pull-failed"):
        verify(f"{NAME}:1", given, configuration.load({}), Output.choose("verify", quiet=True))

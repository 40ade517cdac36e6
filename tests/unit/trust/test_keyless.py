"""Keyless signatures, judged from files alone by sigstore's own verifier."""

import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.signatures import Material
from nimctl.trust.judging import Expected, Judgement, RefusedError, judge
from nimctl.trust.keyless import open_bundle
from tests.lib.keyless_world import IDENTITY, ISSUER, NOW, World, statement

DIGEST = "sha256:" + "1" * 64


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever opens a socket while a signature is judged fails, and is told."""
    opened: list[str] = []

    def refuse(self: socket.socket, address: object) -> None:
        opened.append(str(address))
        raise OSError("no network while a signature is judged")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield opened
    assert opened == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World().write_root(tmp_path_factory.mktemp("root") / "root.json")


def verdict(bundle: bytes, root: Path | None, identity: str = IDENTITY) -> Judgement:
    def check(data: bytes) -> tuple[bytes, str]:
        return open_bundle(data, identity=identity, issuer=ISSUER, trusted_root=root)

    return judge([Material("sigstore-bundle", DIGEST, bundle)], Expected((DIGEST,), "a/b"), [], [check])


@pytest.mark.parametrize("identity", [IDENTITY, "https://github.com/corp/*", "*/release.yml@refs/heads/main"])
def test_the_right_identity_is_good(identity: str, root: Path) -> None:
    found = verdict(World().bundle(statement(DIGEST)), root, identity)
    assert (found.verdict, found.digest, found.by) == ("good", DIGEST, f"{IDENTITY} ({ISSUER})")


@pytest.mark.parametrize("identity", ["https://github.com/corp/images", "https://github.com/corp?*", ".*", "[!-~]*"])
def test_an_identity_is_no_pattern_but_for_its_star(identity: str, root: Path) -> None:
    assert verdict(World().bundle(statement(DIGEST)), root, identity).verdict == "wrong-identity"


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (World().bundle(statement(DIGEST), identity="https://evil.example"), "wrong-identity"),
        (World().bundle(statement(DIGEST), issuer="https://evil.example"), "wrong-identity"),
        (World().another().bundle(statement(DIGEST)), "wrong-key"),
        (World().bundle(statement(DIGEST), logged=NOW + timedelta(hours=1)), "expired-certificate"),
        (World().bundle(statement(DIGEST), logged=NOW - timedelta(hours=1)), "expired-certificate"),
        (World().bundle(statement(DIGEST), logged_payload=b"{}"), "wrong-key"),
        (World().bundle(statement("sha256:" + "2" * 64)), "other-digest"),
        (World().bundle(statement(DIGEST, "https://slsa.dev/provenance/v1")), "none"),
    ],
    ids=["identity", "issuer", "root", "expired", "too early", "log", "digest", "attestation"],
)
def test_what_is_wrong_is_named(bundle: bytes, expected: str, root: Path) -> None:
    assert verdict(bundle, root).verdict == expected


def test_a_bundle_without_its_log_entry(root: Path) -> None:
    document = json.loads(World().bundle(statement(DIGEST)))
    document["verificationMaterial"]["tlogEntries"] = []
    assert verdict(json.dumps(document).encode(), root).verdict == "malformed"
    document["verificationMaterial"]["certificate"]["rawBytes"] = "AAAA"
    assert verdict(json.dumps(document).encode(), root).verdict == "malformed"


def test_the_root_that_the_library_carries_is_used_without_a_file() -> None:
    assert verdict(World().bundle(statement(DIGEST)), None).verdict == "wrong-key"


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"mediaType": "other"}'])
def test_a_root_that_is_none_names_its_file(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NimctlError) as raised:
        verdict(World().bundle(statement(DIGEST)), path)
    assert raised.value.id == "trust-invalid"
    assert str(path) in raised.value.message


def test_the_first_of_several_identities_that_fits_counts(root: Path) -> None:
    def check(identity: str) -> Judgement:
        return verdict(World().bundle(statement(DIGEST)), root, identity)

    assert check("x").verdict == "wrong-identity"
    with pytest.raises(RefusedError):
        open_bundle(b"junk", identity="x", issuer="y", trusted_root=root)

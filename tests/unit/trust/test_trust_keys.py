"""Key files: what is read, what is refused in words, and that nothing is written over or shown."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.trust import keys
from tests.lib.keyless_world import World

PEM = serialization.Encoding.PEM
PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
_SEALED = (
    "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYiOnt9fQ==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
)


def refused(path: Path, passphrase: str | None = None, *, private: bool = False) -> NimctlError:
    with pytest.raises(NimctlError) as raised:
        if private:
            keys.read_private(path, Secret(passphrase) if passphrase else None)
        else:
            keys.read_public(path)
    assert raised.value.id == "trust-invalid"
    assert str(path) in raised.value.message
    return raised.value


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_a_pair_that_is_made_signs_and_verifies(passphrase: str | None, tmp_path: Path) -> None:
    secret = Secret(passphrase) if passphrase else None
    private, public = keys.generate(tmp_path / "new" / "folder", secret)
    assert private.stat().st_mode & 0o777 == 0o600
    assert keys.is_encrypted(private) is bool(passphrase)
    key = keys.read_private(private, secret)
    assert keys.read_public(public).signed(key.sign(b"data"), b"data")
    assert not keys.read_public(public).signed(key.sign(b"data"), b"dat")
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("name", ["nimctl.key", "nimctl.pub"])
def test_nothing_is_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/nowhere")
    with pytest.raises(NimctlError, match="trust-invalid"):
        keys.generate(tmp_path, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_passphrases(tmp_path: Path) -> None:
    sealed, _ = keys.generate(tmp_path / "sealed", Secret("right one"))
    bare, _ = keys.generate(tmp_path / "bare", None)
    unopened = refused(sealed, private=True)
    assert "no passphrase" in unopened.cause
    assert "--passphrase-stdin" not in unopened.fix  # `build` and `bundle create` sign as well, and have no such option
    assert "wrong" in refused(sealed, "wrong one", private=True).cause
    assert "not encrypted" in refused(bare, "right one", private=True).cause


def test_what_is_no_public_key(tmp_path: Path) -> None:
    private, _ = keys.generate(tmp_path / "pair", None)
    path = tmp_path / "key.pub"
    assert "No such file" in refused(path).cause
    for content, word in [
        (b"", "no public key"),
        (b"junk", "no public key"),
        (private.read_bytes(), "private key"),
        (World().root.public_bytes(PEM), "certificate"),
        (b"x" * 100_000, "too large"),
        (ec.derive_private_key(7, ec.SECP256K1()).public_key().public_bytes(PEM, PUBLIC), "kind"),
        (rsa.generate_private_key(65537, 1024).public_key().public_bytes(PEM, PUBLIC), "kind"),
    ]:
        path.write_bytes(content)
        assert word in refused(path).cause


def test_what_is_no_private_key(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    for content, word in [(b"junk", "no private key"), (_SEALED.encode(), "cosign's own encrypted form")]:
        path.write_bytes(content)
        assert word in refused(path, private=True).cause
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem)
    assert "no EC key" in refused(path, private=True).cause

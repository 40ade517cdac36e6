"""Keys: read, made, and the two things that are done with them. The only importer of cryptography."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

_LARGEST = 64 * 2**10  # bytes of a key file
_LEAST_RSA = 2048  # bits

# cosign hashes with SHA-256 whatever the curve; the sigstore bundle's registry of algorithms pairs hash and curve:
# https://github.com/sigstore/architecture-docs/blob/main/algorithm-registry.md
_HASHES: dict[str, tuple[hashes.HashAlgorithm, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA384(), hashes.SHA256()),
    "secp521r1": (hashes.SHA512(), hashes.SHA256()),
}


@dataclass(frozen=True)
class PublicKey:
    """A key that is trusted. `source` is its file; `fingerprint` the SHA-256 of its DER form, in hex."""

    source: str
    fingerprint: str
    key: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"key {self.source} ({self.fingerprint[:12]})"

    def signed(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's signature of `data`."""
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            return any(_holds(self.key, signature, data, ec.ECDSA(h)) for h in _HASHES[self.key.curve.name])
        if isinstance(self.key, rsa.RSAPublicKey):
            return _holds(self.key, signature, data, padding.PKCS1v15(), hashes.SHA256())
        return _holds(self.key, signature, data)


@dataclass(frozen=True)
class PrivateKey:
    """A key to sign with; prints without it."""

    source: str
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return _public(self.source, self.key.public_key())

    @property
    def public_pem(self) -> bytes:
        """The public half as the file that others verify with."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, data: bytes) -> bytes:
        """The ECDSA signature of `data` with SHA-256, in DER."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


def read_public(path: Path) -> PublicKey:
    """The public key in a PEM file. Raises `trust-invalid`, naming the file."""
    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise _invalid(path, "it holds a private key", "Name the file of the public key (.pub); keep the private one.")
    if b"BEGIN CERTIFICATE" in data:
        raise _invalid(path, "it holds a certificate, not a key", "Name it under `certs`, or the key under `keys`.")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid(path, f"it is no public key in PEM form ({_words(error)})") from None
    return _public(str(path), key)


def read_private(path: Path, passphrase: Secret | None) -> PrivateKey:
    """The EC private key in a PEM file, encrypted or not. Raises `trust-invalid`, which never shows the content."""
    data = _read(path)
    if b"ENCRYPTED SIGSTORE PRIVATE KEY" in data or b"ENCRYPTED COSIGN PRIVATE KEY" in data:
        raise _invalid(
            path,
            "it is a key in cosign's own encrypted form (NaCl secretbox), which nimctl cannot open",
            "Make a pair with `nimctl sign --generate DIR`; `cosign import-key-pair` takes its key too.",
        )
    try:
        key = serialization.load_pem_private_key(data, passphrase.reveal().encode() if passphrase else None)
    except TypeError:
        if passphrase is None:
            raise _invalid(
                path,
                "it is encrypted, and no passphrase was given",
                "Set NIMCTL_SIGN_PASSPHRASE; on a terminal it is asked for.",
            ) from None
        raise _invalid(path, "a passphrase was given, and it is not encrypted", "Leave the passphrase out.") from None
    except (ValueError, UnsupportedAlgorithm):  # their texts say little, and could say too much
        why = "the passphrase is wrong, or the file is damaged" if passphrase else "it is no private key in PEM form"
        raise _invalid(path, why, "Give the right file and passphrase.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise _invalid(path, "it is no EC key on P-256, P-384 or P-521", "`nimctl sign --generate DIR` makes a pair.")
    return PrivateKey(str(path), key)


def is_encrypted(path: Path) -> bool:
    """Whether a private key needs a passphrase. Raises `trust-invalid` for a file that cannot be read."""
    return b"ENCRYPTED" in _read(path)


def generate(folder: Path, passphrase: Secret | None) -> tuple[Path, Path]:
    """Make a P-256 pair in `folder`: `nimctl.key` (0600, encrypted where there is a passphrase) and `nimctl.pub`.

    Nothing that exists is written over. Raises `trust-invalid`.
    """
    pair = PrivateKey(str(folder), ec.generate_private_key(ec.SECP256R1()))
    sealed: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        sealed = serialization.BestAvailableEncryption(passphrase.reveal().encode())
    private = pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    key, public = folder / "nimctl.key", folder / "nimctl.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (key, public):
            if os.path.lexists(path):
                raise _invalid(path, "it exists already", "Name another folder; a key that signed is still needed.")
        _write_new(key, private, 0o600)
        _write_new(public, pair.public_pem, 0o644)
    except OSError as error:
        raise _invalid(folder, f"no key can be written there ({error.strerror})", "Name a folder of yours.") from None
    return key, public


def certificate_names(certificate: Any) -> tuple[str, ...]:
    """Whom a signing certificate names: the addresses and mailboxes among its alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    found = names.get_values_for_type(x509.RFC822Name) + names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(str(name) for name in found)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        os.fsync(handle)


def _public(source: str, key: Any) -> PublicKey:
    fits = (
        (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES)
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA)
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not fits:
        raise _invalid(
            Path(source), "it is of a kind that images are not signed with (EC, RSA from 2048 bits, Ed25519)"
        )
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(source, hashlib.sha256(der).hexdigest(), key)


def _holds(key: Any, signature: bytes, data: bytes, *how: Any) -> bool:
    try:
        key.verify(signature, data, *how)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise _invalid(path, error.strerror or "it cannot be read") from None
    if len(data) > _LARGEST:
        raise _invalid(path, "it is too large for a key")
    return data


def _words(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _invalid(
    path: Path, cause: str, fix: str = "Name the file of a public key, as `cosign.pub` is one."
) -> NimctlError:
    return NimctlError("trust-invalid", f"the key {path} cannot be used", cause=cause, fix=fix)

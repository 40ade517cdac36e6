"""A Sigstore of one's own: certificate authority, certificate log, signature log and the trusted root that names them.

Everything is made from fixed numbers and fixed times, so that a test neither asks a network nor depends on the day.
What it signs is accepted by sigstore's own verifier (test_keyless_world.py) exactly when it is made without a fault.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
IDENTITY = "https://github.com/corp/images/.github/workflows/release.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_BEFORE = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")


def key_from(number: int) -> ec.EllipticCurvePrivateKey:
    """Always the same P-256 key for the same number."""
    return ec.derive_private_key(0x5EED0000 + number, ec.SECP256R1())


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def statement(digest: str, predicate_type: str = "https://sigstore.dev/cosign/sign/v1") -> bytes:
    """What cosign signs of an image."""
    subject = [{"digest": {"sha256": digest.removeprefix("sha256:")}}]
    document = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": predicate_type}
    return json.dumps({**document, "predicate": {}}).encode()


@dataclass(frozen=True)
class World:
    """`seed` chooses the keys: two worlds of different seeds do not trust each other."""

    seed: int = 0

    @property
    def authority(self) -> ec.EllipticCurvePrivateKey:
        return key_from(10 * self.seed + 1)

    @property
    def certificate_log(self) -> ec.EllipticCurvePrivateKey:
        return key_from(10 * self.seed + 2)

    @property
    def log(self) -> ec.EllipticCurvePrivateKey:
        return key_from(10 * self.seed + 3)

    @property
    def root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {self.seed}")])
        public = self.authority.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=365))
            .not_valid_after(NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    def trusted_root(self) -> dict[str, Any]:
        """The trusted_root.json of this world."""
        since = {"start": "2025-01-01T00:00:00Z"}

        def instance(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            public = {"rawBytes": _b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            log_id = {"keyId": _b64(hashlib.sha256(der(key)).digest())}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": log_id}

        chain = {"certificates": [{"rawBytes": _b64(self.root.public_bytes(serialization.Encoding.DER))}]}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [instance(self.log, "https://log.example")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "corp", "commonName": f"authority {self.seed}"},
                    "uri": "https://authority.example",
                    "certChain": chain,
                    "validFor": since,
                }
            ],
            "ctlogs": [instance(self.certificate_log, "https://certificates.example")],
            "timestampAuthorities": [],
        }

    def write_root(self, path: Path) -> Path:
        path.write_text(json.dumps(self.trusted_root()))
        return path

    def certificate(
        self, public: ec.EllipticCurvePublicKey, identity: str, issuer: str, lasts: timedelta = timedelta(minutes=10)
    ) -> x509.Certificate:
        """A signing certificate as Fulcio makes it, with the certificate log's promise inside."""
        bare = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(public)
            .serial_number(77)
            .not_valid_before(NOW)
            .not_valid_after(NOW + lasts)
            .add_extension(_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, _tlv(0x0C, issuer.encode())), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_BEFORE, issuer.encode()), critical=False)
        )
        promise = self._promise(bare.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes)
        return bare.add_extension(x509.UnrecognizedExtension(_SCTS, promise), critical=False).sign(
            self.authority, hashes.SHA256()
        )

    def _promise(self, certificate: bytes) -> bytes:
        """https://www.rfc-editor.org/rfc/rfc6962#section-3.2, for the one certificate, as X.509 carries it."""
        when = int(NOW.timestamp() * 1000)
        issuer = hashlib.sha256(der(self.authority)).digest()
        entry = issuer + len(certificate).to_bytes(3, "big") + certificate
        signature = sign(self.certificate_log, struct.pack("!BBQH", 0, 0, when, 1) + entry + b"\0\0")
        head = struct.pack("!B32sQH", 0, hashlib.sha256(der(self.certificate_log)).digest(), when, 0)
        one = head + b"\x04\x03" + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!H", len(one)) + one
        return _tlv(0x04, struct.pack("!H", len(listed)) + listed)

    def bundle(
        self,
        payload: bytes,
        *,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        logged: datetime = NOW + timedelta(minutes=1),
        logged_payload: bytes | None = None,
    ) -> bytes:
        """A bundle v0.3 over `payload`. `logged_payload` is what the log has seen, where that is something else."""
        signer = key_from(10 * self.seed + 4)
        certificate = self.certificate(signer.public_key(), identity, issuer)
        seen = payload if logged_payload is None else logged_payload
        signature = sign(signer, pae(payload))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        entry = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(seen).hexdigest()},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(seen).hexdigest()},
                "signatures": [{"signature": _b64(signature), "verifier": _b64(pem)}],
            },
        }
        document = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": _b64(certificate.public_bytes(serialization.Encoding.DER))},
                "tlogEntries": [self._logged(json.dumps(entry, separators=(",", ":")).encode(), logged)],
            },
            "dsseEnvelope": {
                "payload": _b64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": _b64(signature)}],
            },
        }
        return json.dumps(document).encode()

    def _logged(self, body: bytes, when: datetime) -> dict[str, Any]:
        """The entry in a log of two, with the proof that it is there and the log's promise of its time."""
        log_id = hashlib.sha256(der(self.log)).digest()
        before = hashlib.sha256(b"\0" + b"an older entry").digest()
        root = hashlib.sha256(b"\1" + before + hashlib.sha256(b"\0" + body).digest()).digest()
        note = f"log.example - {self.seed}\n2\n{_b64(root)}\n"
        signed = _b64(log_id[:4] + sign(self.log, note.encode()))
        promised = {
            "body": _b64(body),
            "integratedTime": int(when.timestamp()),
            "logID": log_id.hex(),
            "logIndex": 1,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        return {
            "logIndex": "1",
            "logId": {"keyId": _b64(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(int(when.timestamp())),
            "inclusionPromise": {"signedEntryTimestamp": _b64(sign(self.log, canonical))},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": _b64(root),
                "treeSize": "2",
                "hashes": [_b64(before)],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example {signed}\n"},
            },
            "canonicalizedBody": _b64(body),
        }

    def another(self) -> "World":
        """A world that this one does not trust."""
        return replace(self, seed=self.seed + 1)


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _usage(*, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _tlv(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 128:
        return bytes([tag, length]) + value
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + value


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

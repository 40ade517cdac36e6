"""What a signature says, once it is known whose it is: pure reading, strict in everything that decides.

JSON with a name given twice is refused: two readers could see two documents. Digests are `sha256:` and 64 lower-case
hex digits, or no digests.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from nimctl.core.image_identity import DIGEST
from nimctl.core.signatures import BUNDLE_TYPES, MAX_PAYLOAD, SIGN_PREDICATE

SIMPLE_TYPE = "cosign container image signature"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MOST_SUBJECTS = 256


class MalformedError(ValueError):
    """The bytes are not of the form that they should have; the text says what is wrong, in words for people."""


@dataclass(frozen=True)
class Claim:
    """What was signed: digests of images, each with the repository that was named for it (None: none was)."""

    images: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Envelope:
    """The DSSE envelope of a bundle, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.

    `keyless`: the bundle carries a certificate instead of naming a key.
    """

    payload: bytes
    signature: bytes
    keyless: bool

    @property
    def signed(self) -> bytes:
        """The bytes that were signed (pre-authentication encoding)."""
        kind = PAYLOAD_TYPE.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


def read_json(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises MalformedError."""
    if len(data) > MAX_PAYLOAD:
        raise MalformedError(f"it has {len(data)} bytes, more than any signature")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except MalformedError:
        raise
    except (ValueError, RecursionError):
        raise MalformedError("it is not JSON") from None
    if not isinstance(document, dict):
        raise MalformedError("it is not a JSON object")
    return document


def read_base64(text: Any, what: str) -> bytes:
    """Strict base64. Raises MalformedError."""
    if not isinstance(text, str) or len(text) > 2 * MAX_PAYLOAD:
        raise MalformedError(f"{what} is no text")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError(f"{what} is not base64") from None


def read_simple(payload: bytes) -> Claim:
    """The claim of a simple-signing payload. Raises MalformedError.

    https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md#simple-signing; its prose writes
    `Docker-manifest-digest`, and cosign `docker-manifest-digest`: either, and not both.
    """
    critical = _object(read_json(payload).get("critical"), "critical")
    if critical.get("type") != SIMPLE_TYPE:
        raise MalformedError(f"its type is {critical.get('type')!r}, not {SIMPLE_TYPE!r}")
    image = _object(critical.get("image"), "critical.image")
    named = [image[name] for name in image if name.lower() == "docker-manifest-digest"]
    if len(named) != 1:
        raise MalformedError("it does not name one digest")
    reference = _object(critical.get("identity"), "critical.identity").get("docker-reference")
    if not isinstance(reference, str):
        raise MalformedError("it names no repository")
    return Claim(((_digest(named[0]), repository_of(reference)),))


def read_statement(payload: bytes) -> Claim | None:
    """The claim of an in-toto statement; None for one that attests something else (an SBOM, a provenance).

    Raises MalformedError.
    """
    statement = read_json(payload)
    if statement.get("_type") != STATEMENT_TYPE:
        raise MalformedError(f"its type is {statement.get('_type')!r}, not an in-toto statement")
    if statement.get("predicateType") != SIGN_PREDICATE:
        return None
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or not 0 < len(subjects) <= _MOST_SUBJECTS:
        raise MalformedError("it names no subject")
    return Claim(tuple(_subject(_object(subject, "subject")) for subject in subjects))


def _subject(subject: dict[str, Any]) -> tuple[str, str | None]:
    """Digest and repository of a subject. cosign names none in this form; whoever names one means it."""
    name = subject.get("name") or None
    if name is not None and not isinstance(name, str):
        raise MalformedError("the name of its subject is no text")
    hexadecimal = _object(subject.get("digest"), "digest").get("sha256")
    return _digest(f"sha256:{hexadecimal}"), repository_of(name) if name else None


def read_bundle(bundle: bytes) -> Envelope:
    """The envelope of a sigstore bundle v0.3. Raises MalformedError."""
    document = read_json(bundle)
    if document.get("mediaType") not in BUNDLE_TYPES:
        raise MalformedError(f"it is a bundle of the kind {document.get('mediaType')!r}, which is not supported")
    material = _object(document.get("verificationMaterial"), "verificationMaterial")
    kinds = [name for name in ("publicKey", "certificate", "x509CertificateChain") if name in material]
    if len(kinds) != 1:
        raise MalformedError("it names neither one key nor one certificate")
    if "dsseEnvelope" not in document or "messageSignature" in document:
        raise MalformedError("it holds no signed statement (DSSE)")
    envelope = _object(document["dsseEnvelope"], "dsseEnvelope")
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        raise MalformedError(f"its payload is {envelope.get('payloadType')!r}, not {PAYLOAD_TYPE}")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise MalformedError("it does not hold one signature")
    signature = read_base64(_object(signatures[0], "signature").get("sig"), "its signature")
    return Envelope(read_base64(envelope.get("payload"), "its payload"), signature, kinds != ["publicKey"])


def repository_of(reference: str) -> str:
    """`registry/repository` of a reference as signers write it: with or without tag and digest."""
    bare = reference.strip().partition("@")[0]
    head, slash, last = bare.rpartition("/")
    bare = f"{head}{slash}{last.partition(':')[0]}"
    return re.sub(r"^(index\.docker\.io|registry-1\.docker\.io)/", "docker.io/", bare)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise MalformedError("it gives a name twice")
    return document


def _no_constant(word: str) -> Any:
    raise MalformedError(f"it holds {word}, which is not JSON")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"its {what} is missing")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise MalformedError("its digest is not sha256: and 64 lower-case hex digits")
    return value

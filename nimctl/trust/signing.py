"""Making signatures of images with a local key, in both forms that cosign writes and reads.

The forms: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md (cosign 2 and before) and
https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md (cosign 3). Neither goes to a transparency log.
"""

import base64
import json
from typing import Any

from nimctl.core.signatures import BUNDLE_TYPES, SIGN_PREDICATE, Material
from nimctl.trust.claims import PAYLOAD_TYPE, SIMPLE_TYPE, STATEMENT_TYPE, Envelope
from nimctl.trust.keys import PrivateKey


def sign_image(key: PrivateKey, repository: str, digest: str) -> tuple[Material, Material]:
    """The two signatures of the image `digest` in `repository` (`registry/name`): simple signing, and a bundle."""
    return _simple(key, repository, digest), _bundle(key, repository, digest)


def _simple(key: PrivateKey, repository: str, digest: str) -> Material:
    payload = _json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest},
                "type": SIMPLE_TYPE,
            },
            "optional": {},
        }
    )
    return Material("simple-signing", digest, payload, _base64(key.sign(payload)))


def _bundle(key: PrivateKey, repository: str, digest: str) -> Material:
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": repository, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": SIGN_PREDICATE,
        "predicate": {},
    }
    payload = _json(statement)
    signature = key.sign(Envelope(payload, b"", keyless=False).signed)
    bundle = {
        "mediaType": BUNDLE_TYPES[0],
        "verificationMaterial": {"publicKey": {"hint": _base64(bytes.fromhex(key.public.fingerprint))}},
        "dsseEnvelope": {
            "payload": _base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _base64(signature)}],
        },
    }
    return Material("sigstore-bundle", digest, _json(bundle))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

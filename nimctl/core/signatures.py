"""Signatures as they lie beside an image in a registry, or in a folder: bytes, and nothing judged yet.

`registry` finds them, `bundle` carries them, `trust` judges them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["simple-signing", "sigstore-bundle"]

# Nobody signs an image so often, and no signature is so large; more would only cost whoever judges them time.
MAX_MATERIALS = 64
MAX_PAYLOAD = 2**20  # bytes


@dataclass(frozen=True)
class Material:
    """One signature and all that is needed to check it without a network.

    `simple-signing`: `payload` is the JSON that was signed and `signature` its signature in base64; `annotations` are
    those of the layer in the registry (certificate, chain, Rekor's own bundle), as
    https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md names them.
    `sigstore-bundle`: `payload` is the bundle's JSON, and `signature` is empty:
    https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
    `subject` is the digest beside which it was found, which proves nothing.
    """

    kind: Kind
    subject: str
    payload: bytes
    signature: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

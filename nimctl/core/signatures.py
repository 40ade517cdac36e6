"""Signatures as they lie beside an image in a registry, or in a folder: bytes, and nothing judged yet.

`registry` finds them, `bundle` carries them, `trust` judges them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal["simple-signing", "sigstore-bundle"]

# Nobody signs an image so often, and no signature is so large; more would only cost whoever judges them time.
MAX_MATERIALS = 64
MAX_PAYLOAD = 2**20  # bytes
# The media types of a sigstore bundle, the one that is written first; and what one says that signs an image, where an
# SBOM or a provenance says something else. https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
BUNDLE_TYPES = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
)
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._\-]*")


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


_LIST = "signatures.json"
_SCHEMA = "nimctl.signatures/1"


def write_materials(folder: Path, materials: Sequence[Material]) -> tuple[Path, ...]:
    """Write signatures as plain files: each payload as it came, and `signatures.json` that says what they are.

    Returns the files, the list last. What lies there under other names stays. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, entries = [], []
    for number, material in enumerate(materials[:MAX_MATERIALS], 1):
        path = folder / f"{number:02}.{'sigstore' if material.kind == 'sigstore-bundle' else 'payload'}.json"
        path.write_bytes(material.payload)
        written.append(path)
        entries.append(
            {
                "kind": material.kind,
                "subject": material.subject,
                "payload": path.name,
                "signature": material.signature,
                "annotations": dict(material.annotations),
            }
        )
    path = folder / _LIST
    path.write_text(json.dumps({"schema": _SCHEMA, "signatures": entries}, indent=1) + "\n", encoding="utf-8")
    return (*written, path)


def read_materials(folder: Path) -> tuple[Material, ...]:
    """The signatures that `write_materials` left in `folder`.

    Raises FileNotFoundError where there is no list, and ValueError for one that is damaged, in words for people.
    """

    def read(name: str, most: int) -> bytes:
        with (folder / name).open("rb") as file:
            return file.read(most + 1)

    return parse_materials(read, str(folder / _LIST))


def parse_materials(read: Callable[[str, int], bytes], shown: str = _LIST) -> tuple[Material, ...]:
    """The signatures in files of which `read(name, most)` gives up to `most` bytes, and one more of a larger one.

    Raises ValueError for a list, `shown` for people, that is damaged; and what `read` raises.
    """
    try:
        document = json.loads(_within(read, _LIST, MAX_MATERIALS * MAX_PAYLOAD))
        if document["schema"] != _SCHEMA:
            raise ValueError(f"{shown} is of the kind {document['schema']!r:.100}, not {_SCHEMA}")
        return tuple(_material(read, entry, shown) for entry in document["signatures"][:MAX_MATERIALS])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown} is no list of signatures ({type(error).__name__})") from None


def _material(read: Callable[[str, int], bytes], entry: Mapping[str, Any], shown: str) -> Material:
    kind, name = entry["kind"], entry["payload"]
    texts = (entry["subject"], entry["signature"], *entry["annotations"].values())
    if kind not in get_args(Kind) or not _NAME.fullmatch(name) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"{shown} names something that is no signature")
    payload = _within(read, name, MAX_PAYLOAD)
    return Material(kind, entry["subject"], payload, entry["signature"], dict(entry["annotations"]))


def _within(read: Callable[[str, int], bytes], name: str, most: int) -> bytes:
    data = read(name, most)
    if len(data) > most:
        raise ValueError(f"{name} is too large for signatures")
    return data

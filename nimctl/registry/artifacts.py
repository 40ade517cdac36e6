"""The signatures that lie beside an image in its registry, as bytes; nothing is judged here.

Two layouts: cosign's tag `sha256-<hex>.sig`, whose layers are payloads and their annotations signatures
(https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md), and sigstore bundles that name the image as
their subject, listed by the referrers API or, where a registry knows none, under the tag `sha256-<hex>`
(https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST
from nimctl.core.signatures import BUNDLE_TYPES, MAX_MATERIALS, MAX_PAYLOAD, SIGN_PREDICATE, Material
from nimctl.registry.login import Login
from nimctl.registry.manifests import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST
from nimctl.registry.reference import Reference
from nimctl.registry.repository import Repository, open_repository
from nimctl.registry.transport import address

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PREDICATE = "dev.sigstore.bundle.predicateType"
_PAGES = 16  # of a registry's list of referrers
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
_NEXT = re.compile(r'\s*<([^>]*)>\s*;\s*rel="?next"?\s*')


def signatures_of(reference: Reference, digests: Sequence[str], login: Login | None) -> tuple[Material, ...]:
    """Every signature beside one of `digests` in the repository of `reference`; empty where there is none.

    At most MAX_MATERIALS are looked at of a kind, the newest first where a registry tells, and none larger than
    MAX_PAYLOAD bytes: what is beyond is left out, and can make an image seem unsigned, never signed.
    Raises what a registry's refusal means, and `image-pull-failed`.
    """
    repository = open_repository(reference, login, "pull")
    found: list[Material] = []
    for digest in dict.fromkeys(digests):
        found += _simple(repository, digest, MAX_MATERIALS - len(found))
        found += _bundles(repository, digest, MAX_MATERIALS - len(found))
    return tuple(found)


def index_of(reference: Reference, digest: str, login: Login | None) -> bytes | None:
    """The bytes of the index `digest` in the repository of `reference`, None where it is not there any more.

    Raises what a registry's refusal means, and `image-pull-failed`.
    """
    found = open_repository(reference, login, "pull").document(f"manifests/{digest}", ", ".join(INDEXES))
    return found[0] if found else None


def _simple(repository: Repository, digest: str, room: int) -> list[Material]:
    found = repository.document(f"manifests/{_tag(digest)}.sig", ", ".join(MANIFESTS))
    materials: list[Material] = []
    layers = [
        (layer, notes)
        for layer in reversed(_objects(found[1].get("layers")) if found else [])  # each signing adds one at the end
        if layer.get("mediaType") == SIMPLE_SIGNING and SIGNATURE in (notes := _texts(layer.get("annotations")))
    ]
    for layer, notes in layers[:room]:
        if (payload := _bytes(repository, layer)) is not None:
            rest = {name: value for name, value in notes.items() if name != SIGNATURE}
            materials.append(Material("simple-signing", digest, payload, notes[SIGNATURE], rest))
    return materials


def _bundles(repository: Repository, digest: str, room: int) -> list[Material]:
    payloads = (_bundle(repository, entry) for entry in _referrers(repository, digest)[:room])
    return [Material("sigstore-bundle", digest, payload) for payload in payloads if payload is not None]


def _referrers(repository: Repository, digest: str) -> list[dict[str, Any]]:
    """The bundles that name `digest` as their subject and mean to be signatures."""
    # a mirror may have been filled by a client that wrote the tag, whatever its registry can do
    found = repository.document(f"manifests/{_tag(digest)}", OCI_INDEX)
    listed = [entry for page in _pages(repository, digest) for entry in page]
    listed += reversed(_objects(found[1].get("manifests")) if found else [])
    return list({str(entry.get("digest")): entry for entry in listed if _is_signature(entry)}.values())


def _pages(repository: Repository, digest: str) -> Iterator[list[dict[str, Any]]]:
    """The registry's own list, as far as _PAGES. One without the API answers 404, and some older ones 400 or 405."""
    url: str | None = repository.session.url(f"referrers/{digest}")
    for _ in range(_PAGES):
        if url is None:
            return
        answer = repository.ask("GET", url, {"Accept": OCI_INDEX})
        if answer.status in (401, 403, 429) or answer.status >= 500:
            raise repository.refused(answer)
        if answer.status != 200:
            return
        yield _objects(repository.parsed(answer.body).get("manifests"))
        following = _NEXT.fullmatch(answer.headers.get("link", ""))
        url = address(url, following[1]) if following else None


def _is_signature(entry: dict[str, Any]) -> bool:
    """Whether it is one by what it says of itself: an SBOM or a provenance is none."""
    predicate = _texts(entry.get("annotations")).get(PREDICATE, SIGN_PREDICATE)
    return entry.get("artifactType") in BUNDLE_TYPES and predicate == SIGN_PREDICATE


def _bundle(repository: Repository, entry: dict[str, Any]) -> bytes | None:
    digest = str(entry.get("digest"))
    found = repository.document(f"manifests/{digest}", OCI_MANIFEST) if DIGEST.fullmatch(digest) else None
    layers = _objects(found[1].get("layers")) if found else []
    return _bytes(repository, layers[0]) if len(layers) == 1 and layers[0].get("mediaType") in BUNDLE_TYPES else None


def _bytes(repository: Repository, layer: dict[str, Any]) -> bytes | None:
    """The bytes of a layer; None for one that is too large to be a signature, or is not there."""
    digest, size = layer.get("digest"), layer.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return None
    if not isinstance(size, int) or not 0 < size <= MAX_PAYLOAD:
        return None
    try:
        data = repository.blob(digest)
    except NimctlError as error:
        if error.id == "image-not-found":
            return None
        raise
    return data if len(data) <= MAX_PAYLOAD else None


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> dict[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}

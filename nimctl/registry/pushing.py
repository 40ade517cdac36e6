"""Small things into a registry: blobs, manifests, and what belongs to an image (signatures, attestations).

Blobs go up in one piece (POST, then PUT), https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing.
A thing that belongs to an image names it as its `subject`; registries that know no referrers (OCI 1.1) get the list of
them under the tag that the specification gives it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from nimctl.core.errors import NimctlError
from nimctl.core.signatures import BUNDLE_TYPES, SIGN_PREDICATE, Material
from nimctl.registry.artifacts import PREDICATE, SIGNATURE, SIMPLE_SIGNING
from nimctl.registry.login import Login
from nimctl.registry.manifests import ACCEPT, OCI_INDEX, OCI_MANIFEST, digest_of
from nimctl.registry.reference import Reference
from nimctl.registry.repository import EMPTY, Repository, open_repository

__all__ = ["Layer", "Subject", "push_artifact", "push_blob", "push_manifest", "push_signature", "subject_of"]


@dataclass(frozen=True)
class Layer:
    """Bytes to push, and what they are."""

    media_type: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)

    def descriptor(self) -> dict[str, Any]:
        """The layer as a manifest lists it."""
        plain = {"mediaType": self.media_type, "digest": digest_of(self.data), "size": len(self.data)}
        return {**plain, "annotations": dict(self.annotations)} if self.annotations else plain


@dataclass(frozen=True)
class Subject:
    """The manifest or index that an artifact belongs to. `size` in bytes."""

    digest: str
    media_type: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        """The subject as a manifest names it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def subject_of(repository: Repository, digest: str) -> Subject:
    """What lies in the registry under `digest`. Raises `image-not-found`."""
    path = f"manifests/{digest}"
    answer = repository.ask("GET", path, {"Accept": ACCEPT})
    if answer.status != 200:
        raise repository.refused(answer)
    if digest_of(answer.body) != digest:
        raise _failed(repository, "push to", f"{digest} was asked for, and {digest_of(answer.body)} came")
    media_type = repository.parsed(answer.body).get("mediaType") or answer.headers.get("content-type", OCI_MANIFEST)
    return Subject(digest, str(media_type).partition(";")[0].strip(), len(answer.body))


def push_blob(repository: Repository, data: bytes) -> str:
    """Have `data` in the repository; returns its digest. Nothing is sent where it is there already.

    Raises `key-refused` (a key that may not push), `image-pull-failed`.
    """
    digest = digest_of(data)
    if repository.ask("HEAD", f"blobs/{digest}").status == 200:
        return digest
    opened = repository.ask("POST", "blobs/uploads/", {"Content-Length": "0"}, b"")
    location = opened.headers.get("location", "")
    if opened.status != 202 or not location:
        raise repository.refused(opened)
    joint = "&" if "?" in location else "?"
    headers = {"Content-Type": "application/octet-stream"}
    done = repository.ask("PUT", f"{location}{joint}{urlencode({'digest': digest})}", headers, data)
    # a lost answer makes the second try meet a session that has ended well: what counts is that the blob is there
    if done.status != 201 and repository.ask("HEAD", f"blobs/{digest}").status != 200:
        raise repository.refused(done)
    return digest


def push_manifest(repository: Repository, document: Mapping[str, Any], tag: str | None = None) -> tuple[str, bool]:
    """Put a manifest under `tag`, else under its own digest. Returns its digest, and whether the registry keeps the
    list of what refers to a subject by itself."""
    data = _encoded(document)
    digest = digest_of(data)
    headers = {"Content-Type": str(document["mediaType"])}
    answer = repository.ask("PUT", f"manifests/{tag or digest}", headers, data)
    if answer.status != 201:
        raise repository.refused(answer)
    return digest, bool(answer.headers.get("oci-subject"))


def push_artifact(
    reference: Reference,
    login: Login | None,
    *,
    artifact_type: str,
    layers: Sequence[Layer],
    subject: str | None = None,
    annotations: Mapping[str, str] | None = None,
    tag: str | None = None,
) -> str:
    """Push `layers` as one OCI 1.1 artifact beside `reference`, and return its digest.

    `subject` is the digest of the image that it belongs to, which must be there already. Raises `key-refused`,
    `image-not-found`, `image-pull-failed`.
    """
    repository = open_repository(reference, login, "pull,push")
    belongs_to = subject_of(repository, subject) if subject else None
    config = Layer(EMPTY, b"{}")
    for layer in (config, *layers):
        push_blob(repository, layer.data)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
        **({"subject": belongs_to.descriptor()} if belongs_to else {}),
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    digest, listed = push_manifest(repository, manifest, tag)
    if belongs_to and not listed:
        entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(_encoded(manifest))}
        about: dict[str, Any] = {name: manifest[name] for name in ("artifactType", "annotations") if name in manifest}
        _list(repository, belongs_to.digest, {**entry, **about})
    return digest


def push_signature(reference: Reference, login: Login | None, material: Material) -> str:
    """Push one signature beside its image, where cosign looks for its kind. Returns its manifest's digest.

    Signatures that are there already stay. Raises as `push_artifact` does.
    """
    if material.kind == "sigstore-bundle":
        title = f"{digest_of(material.payload).replace(':', '-')}.sigstore.json"
        return push_artifact(
            reference,
            login,
            artifact_type=BUNDLE_TYPES[0],
            layers=[Layer(BUNDLE_TYPES[0], material.payload, {"org.opencontainers.image.title": title})],
            subject=material.subject,
            annotations={"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE: SIGN_PREDICATE},
        )
    repository = open_repository(reference, login, "pull,push")
    subject_of(repository, material.subject)
    tag = f"{material.subject.replace(':', '-')}.sig"
    layer = Layer(SIMPLE_SIGNING, material.payload, {SIGNATURE: material.signature, **material.annotations})
    found = repository.document(f"manifests/{tag}", OCI_MANIFEST)
    listed = found[1].get("layers") if found else None
    layers = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    layers.append(layer.descriptor())
    config = _signature_config([str(each.get("digest")) for each in layers])
    push_blob(repository, layer.data)
    push_blob(repository, config.data)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": layers}
    return push_manifest(repository, manifest, tag)[0]


def _signature_config(digests: Sequence[str]) -> Layer:
    """The configuration that cosign gives the image of its signatures: some registries refuse an image without one."""
    document = {
        "architecture": "",
        "os": "",
        "created": "0001-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(digests)},
    }
    return Layer("application/vnd.oci.image.config.v1+json", _encoded(document))


def _list(repository: Repository, subject: str, entry: Mapping[str, Any]) -> None:
    """Add `entry` to the list of referrers under its tag, for registries that keep none themselves.

    Two writers at once may lose one entry; it is looked for afterwards and written again, as the specification leaves
    no better way.
    """
    tag = subject.replace(":", "-")
    for _ in range(5):
        found = repository.document(f"manifests/{tag}", OCI_INDEX)
        listed = found[1].get("manifests") if found else None
        entries = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
        if any(e.get("digest") == entry["digest"] for e in entries):
            return
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, dict(entry)]}
        push_manifest(repository, index, tag)
    raise _failed(repository, "keep a list in", f"the tag {tag} is overwritten again and again")


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _failed(repository: Repository, what: str, cause: str) -> NimctlError:
    return NimctlError(
        "image-pull-failed",
        f"{repository.reference.registry} could not be used to {what} {repository.reference.repository}",
        cause=cause,
        fix="Try again; if it stays, a proxy or mirror on the way serves wrong content.",
    )

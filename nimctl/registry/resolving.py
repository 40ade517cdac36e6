"""From a name to exactly one image: the digests of its index, its manifest and its configuration. No layer is touched.

Each is checked against the digest that the one before it names, so that what the tag stood for at the first answer is
what all others describe.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nimctl.core.image_identity import DIGEST, ImageIdentity
from nimctl.registry import manifests
from nimctl.registry.blobs import read_blob, tampered
from nimctl.registry.login import Login
from nimctl.registry.manifests import ACCEPT, Blob, Index, Manifest
from nimctl.registry.reference import Reference
from nimctl.registry.session import Session, enter
from nimctl.registry.transport import MAX_BODY

__all__ = ["Blob", "RemoteImage", "resolve_image"]


@dataclass(frozen=True)
class RemoteImage:
    """An image as it lies in its registry, for one platform.

    `index`, `manifest` and `config` are the bytes themselves, from which the digests of `identity` follow; `index` is
    None where the name stands for the manifest of one platform. `diff_ids` are the hashes of the unpacked layers.
    """

    identity: ImageIdentity
    layers: tuple[Blob, ...]
    labels: Mapping[str, str]
    index: bytes | None
    manifest: bytes
    config: bytes
    diff_ids: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all layers as they are transferred, each once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


def resolve_image(reference: Reference, login: Login | None, platform: str, *, name: str | None = None) -> RemoteImage:
    """What `reference` stands for now on `platform` ("linux/amd64"), which also proves that it may be pulled.

    `name` is what the user called it, for `identity.reference`. Raises `key-missing`, `key-refused`,
    `terms-not-accepted`, `payment-required`, `image-not-found`, `image-pull-failed`, `platform-missing`,
    `image-incompatible` (no image), `image-tampered` (an answer is not what its digest promises).
    """
    session = enter(reference, login)
    body, kind, digest = _manifest(session, reference.target, reference.digest)
    index, found = None, manifests.read(body, kind, str(reference))
    manifest_digest = digest
    if isinstance(found, Index):
        index, chosen = body, manifests.choose(found, platform, str(reference))
        body, kind, manifest_digest = _manifest(session, chosen.digest, chosen.digest)
        found = manifests.read(body, kind or chosen.media_type, str(reference))
    if not isinstance(found, Manifest):
        raise manifests.nested(str(reference))
    config = read_blob(session, found.config.digest, limit=MAX_BODY)
    described = manifests.read_config(config, str(reference))
    manifests.require_platform(described, platform, str(reference))
    identity = ImageIdentity(name or str(reference), digest, manifest_digest, found.config.digest, platform)
    return RemoteImage(identity, found.layers, described.labels, index, body, config, described.diff_ids)


def _manifest(session: Session, target: str, promised: str | None) -> tuple[bytes, str, str]:
    """Bytes, media type and digest of a manifest. The digest is computed, never believed."""
    answer = session.get(f"manifests/{target}", ACCEPT)
    found = manifests.digest_of(answer.body)
    told = answer.headers.get("docker-content-digest", "")
    for wanted in (promised, told if DIGEST.fullmatch(told) else None):
        if wanted and wanted != found:
            raise tampered(str(session.reference), wanted, found)
    return answer.body, answer.headers.get("content-type", ""), found

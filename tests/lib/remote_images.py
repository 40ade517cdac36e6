"""Images as registries hold them, made of a few bytes: indexes, manifests, configurations."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OCI = "application/vnd.oci.image"
INDEX, MANIFEST, CONFIG = f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json"
LAYER = f"{OCI}.layer.v1.tar+gzip"


def digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def descriptor(body: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(body), "size": len(body), **more}


@dataclass(frozen=True)
class MadeImage:
    """The image of one platform. `content` is what a registry must hold, by digest."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    platform: str

    @property
    def content(self) -> dict[str, tuple[str, bytes]]:
        layers = {digest(layer): (LAYER, layer) for layer in self.layers}
        return {digest(self.manifest): (MANIFEST, self.manifest), digest(self.config): (CONFIG, self.config), **layers}


def make_image(
    platform: str = "linux/amd64",
    layers: Sequence[bytes] = (b"layer one", b"layer two"),
    labels: Mapping[str, str] | None = None,
    says: Mapping[str, Any] | None = None,
) -> MadeImage:
    """An image whose manifest holds `says` in place of what it should."""
    system, architecture, *variant = platform.split("/")
    document = {
        "os": system,
        "architecture": architecture,
        **({"variant": variant[0]} if variant else {}),
        "config": {"Labels": dict(labels or {})},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    config = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER) for layer in layers],
        **(says or {}),
    }
    return MadeImage(json.dumps(manifest).encode(), config, tuple(layers), platform)


def entry(image: MadeImage, **more: Any) -> dict[str, Any]:
    """The line of an index for an image."""
    names = dict(zip(("os", "architecture", "variant"), image.platform.split("/"), strict=False))
    return descriptor(image.manifest, MANIFEST, platform=names, **more)


def attestation(image: MadeImage) -> dict[str, Any]:
    """What BuildKit puts beside an image with provenance: an entry for no platform."""
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest(image.manifest)}
    statement = json.dumps({"attests": digest(image.manifest)}).encode()
    return descriptor(statement, MANIFEST, platform={"os": "unknown", "architecture": "unknown"}, annotations=about)


def make_index(*images: MadeImage, attested: bool = True, **changed: Any) -> bytes:
    entries = [entry(image) for image in images] + [attestation(image) for image in images if attested]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **changed}).encode()


@dataclass
class Shelf:
    """What a registry holds under names: fill it, and hand `content` over."""

    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def put(self, tag: str, *images: MadeImage, index: bytes | None = None) -> str:
        """Tag one image, or an index of several. Returns the digest that the tag stands for."""
        for image in images:
            self.content |= image.content
        kind, body = (
            (INDEX, index or make_index(*images)) if index or len(images) > 1 else (MANIFEST, images[0].manifest)
        )
        self.content |= {tag: (kind, body), digest(body): (kind, body)}
        return digest(body)

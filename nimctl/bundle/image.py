"""An image in a bundle: an OCI image layout with the blobs of its registry, and the one document `docker load` reads.

Docker's classic image store reads `manifest.json` and unpacks the layers, compressed or not; containerd's store follows
`index.json`. Layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md, names for containerd:
https://github.com/containerd/containerd/blob/main/images/annotations.go.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from nimctl.bundle.model import IMAGE, Entry, Image
from nimctl.bundle.problems import invalid
from nimctl.bundle.shelf import Shelf

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_OCI = "application/vnd.oci.image"
_MANIFEST = f"{_OCI}.manifest.v1+json"
_LARGEST = 8 * 2**20  # bytes of a manifest, an index or a configuration
_TAR_BLOCK = tarfile.RECORDSIZE


def blob_path(digest: str) -> str:
    """Where the blob `sha256:...` lies in a bundle."""
    return f"{IMAGE}/blobs/{digest.replace(':', '/')}"


def documents(name: str | None, manifest: bytes) -> dict[str, bytes]:
    """The three documents of the layout, by path in the bundle.

    They lead to the manifest of the platform and not to an index above it, as that is what is pulled and started;
    `name` is its full name with registry and tag; None for one that is known by its digest alone. Raises ValueError.
    """
    found = json.loads(manifest)
    descriptor: dict[str, Any] = {
        "mediaType": str(found.get("mediaType") or _MANIFEST),
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
    }
    if name:
        tag = name.rpartition(":")[2]
        descriptor["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [descriptor]}
    old = {
        "Config": _in_layout(found["config"]["digest"]),
        "RepoTags": [name] if name else None,
        "Layers": [_in_layout(layer["digest"]) for layer in found["layers"]],
    }
    return {
        f"{IMAGE}/oci-layout": LAYOUT,
        f"{IMAGE}/index.json": json.dumps(index, indent=1).encode() + b"\n",
        f"{IMAGE}/manifest.json": json.dumps([old], indent=1).encode() + b"\n",
    }


def manifest_of_save(config: bytes, layers: list[tuple[str, int]]) -> bytes:
    """The manifest of an image that came without one: uncompressed `layers` as (digest, size)."""
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(f"{_OCI}.config.v1+json", f"sha256:{hashlib.sha256(config).hexdigest()}", len(config)),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", digest, size) for digest, size in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(media: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media, "digest": digest, "size": size}


def require_chain(shelf: Shelf, image: Image, full_name: Callable[[str], str | None]) -> None:
    """Follow the digests from the name to the last layer. Raises `bundle-invalid` where one does not lead on.

    `full_name` makes of a reference the name that Docker is to know the image by: what signatures are about.
    """
    try:
        root = _document(shelf, image.digest or image.manifest)
        if image.digest and image.digest != image.manifest:
            listed = root["manifests"]
            if image.manifest not in [each["digest"] for each in listed]:
                raise ValueError(f"its index does not list the manifest {image.manifest}")
        manifest = _document(shelf, image.manifest)
        if manifest["config"]["digest"] != image.config:
            raise ValueError(f"its manifest names another configuration than {image.config}")
        config = _document(shelf, image.config)
        if f"{config['os']}/{config['architecture']}" != "/".join(image.platform.split("/")[:2]):
            raise ValueError(f"its configuration is not for {image.platform!r:.100}")
        if len(config["rootfs"]["diff_ids"]) != len(manifest["layers"]):
            raise ValueError("its configuration knows of another number of layers than its manifest")
        for blob in (manifest["config"], *manifest["layers"]):
            entry = shelf.bundle.entry(blob_path(str(blob["digest"])))
            if blob["digest"] != f"sha256:{entry.sha256}" or blob["size"] != entry.size:
                raise ValueError(f"{entry.path} is not the blob that the manifest names")
        if sum(entry.size for entry in shelf.bundle.below(f"{IMAGE}/blobs")) != image.size:
            raise ValueError(f"its blobs do not have {image.size} bytes")
        raw = shelf.small(blob_path(image.manifest), _LARGEST)
        for path, content in documents(full_name(image.reference), raw).items():
            if shelf.small(path, _LARGEST) != content:
                raise ValueError(f"{path} is not the one of {image.reference!r:.200}")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise invalid(f"the image in it does not hold together: {error}", shelf.name) from error


def _document(shelf: Shelf, digest: str) -> Any:
    path = blob_path(digest)
    found = shelf.json(path, _LARGEST)
    if f"sha256:{shelf.bundle.entry(path).sha256}" != digest:
        raise ValueError(f"{path} does not have the digest {digest}")
    return found


def archive(shelf: Shelf, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """The layout as a tar stream for `docker load`, hashed on its way; what names the image comes last.

    Raises `bundle-damaged` inside of a file that was changed, so that the stream breaks off before anything is named.
    """
    entries = shelf.bundle.below(IMAGE)
    last = {f"{IMAGE}/{name}": place for place, name in enumerate(("oci-layout", "index.json", "manifest.json"))}
    for entry in sorted(entries, key=lambda entry: (last.get(entry.path, -1), entry.path)):
        yield _header(entry)
        for block in shelf.read(entry):
            yield block
            on_bytes(len(block))
        yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
    yield b"\0" * _TAR_BLOCK


def _header(entry: Entry) -> bytes:
    header = tarfile.TarInfo(entry.path.removeprefix(f"{IMAGE}/"))
    header.size, header.mode = entry.size, 0o644
    return header.tobuf(tarfile.GNU_FORMAT)


def _in_layout(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"

"""Small bundles for tests: an image of two layers, weights of three files, packed by the product's own packer."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from nimctl.bundle import image as layout
from nimctl.bundle import journal, model
from nimctl.bundle import weights as weights_layout
from nimctl.bundle.items import Item, of_bytes, sha256
from nimctl.bundle.packing import Packer
from nimctl.bundle.sealing import seal
from nimctl.core.fetch import Progress, Stop
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.sources.checksums import MANIFEST

SPLIT = 2**16  # bytes: what cuts the two large files into three parts each
NAME = "registry.test/org/tiny:1"
WEIGHTS: Mapping[str, bytes] = {
    "config.json": b'{"architectures": ["Tiny"]}',
    "model.safetensors": bytes(range(256)) * 600,  # more than two parts
    "sub/tokenizer.json": b"{}",
}


def digest(content: bytes) -> str:
    """`sha256:...`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(name: str, content: bytes) -> bytes:
    """An uncompressed layer with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def image_blobs() -> tuple[bytes, bytes, list[bytes]]:
    """Manifest, configuration and layers of an image."""
    layers = [layer("one", b"1" * 1000), layer("two", b"2" * 150_000)]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(b) for b in layers]}}
    ).encode()
    return layout.manifest_of_save(config, [(digest(b), len(b)) for b in layers]), config, layers


def manifest_of(files: Mapping[str, bytes] = WEIGHTS) -> Manifest:
    """The manifest of weights; the smallest file has git's digest, as the hub gives it."""
    listed = []
    for path, content in sorted(files.items()):
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        listed.append(File(path, len(content), f"git-sha1:{git}" if len(content) < 10 else digest(content)))
    return Manifest("hf://org/tiny", "a" * 40, tuple(listed))


def items(split: int | None = None) -> list[Item]:
    """All files of the bundle as items."""
    manifest, config, layers = image_blobs()
    blobs = [of_bytes(layout.blob_path(digest(b)), b) for b in (manifest, config, *layers)]
    documents = [of_bytes(p, c) for p, c in layout.documents(NAME, manifest).items()]
    listed = manifest_of()
    weights = [
        Item(
            f"weights/{file.path}",
            file.size,
            lambda offset, path=file.path: iter((WEIGHTS[path][offset:],)),  # type: ignore[misc]
            file.digest,
            wrong="weights-corrupt",
        )
        for file in listed.files
    ]
    return [*blobs, *documents, *weights, of_bytes(f"weights/{MANIFEST}", weights_layout.of_manifest(listed))]


def pack(folder: Path, split: int | None = None) -> model.Bundle:
    """A finished bundle in `folder`."""
    with journal.opened(folder) as notes:
        packer = Packer(notes, 1, split, ignore, Stop())
        packer.pack(items())
        bundle = described(packer)
        seal(bundle, notes)
    return bundle


def described(packer: Packer) -> model.Bundle:
    """The document for what was packed."""
    manifest, config, layers = image_blobs()
    total = len(manifest) + len(config) + sum(map(len, layers))
    listed = manifest_of()
    return model.Bundle(
        "nimctl test",
        "tiny",
        tuple(packer.entries[path] for path in sorted(packer.entries)),
        model.Image(NAME, digest(manifest), digest(manifest), digest(config), "linux/amd64", total),
        model.Weights(listed.source, "org/tiny", "huggingface", listed.revision, ("main",), listed.total),
    )


def ignore(_: Progress) -> None:
    """Nobody looks."""


def rewrite(folder: Path, bundle: model.Bundle, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Give the folder another document with sums that fit it, as somebody who tampers would."""
    document = bundle.to_bytes()
    (folder / model.NAME).write_bytes(document)
    others = [(model.NAME, sha256(document))]
    if sign is not None:
        signature = base64.b64encode(sign(document)) + b"\n"
        (folder / model.SIGNATURE).write_bytes(signature)
        others.append((model.SIGNATURE, sha256(signature)))
    (folder / model.SUMS).write_bytes(model.sums(bundle.pieces, others))

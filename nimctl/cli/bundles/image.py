"""The image of a bundle: out of its registry with the registry's own bytes, or out of the engine that built it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimctl.bundle import image as layout
from nimctl.bundle import model, saved
from nimctl.bundle.items import Item, of_bytes, sha256
from nimctl.bundle.journal import Journal
from nimctl.bundle.packing import Packer
from nimctl.cli.config import Config
from nimctl.core import recipes, signatures
from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.platforms import own_platform
from nimctl.render import Output, size

if TYPE_CHECKING:
    from nimctl.cli.bundles.asked import Asked
    from nimctl.lock.model import Lock
    from nimctl.registry.login import Login
    from nimctl.registry.reference import Reference
    from nimctl.registry.resolving import RemoteImage


@dataclass(frozen=True)
class Carried:
    """The image to carry: `items` from its registry; or its `id` in the engine, and about how large it is there."""

    model: str
    identity: ImageIdentity
    items: tuple[Item, ...] = ()
    materials: tuple[signatures.Material, ...] = ()
    manifest: bytes | None = None
    id: str | None = None
    saved_size: int | None = None


def choose(asked: Asked, lock: Lock | None, config: Config, out: Output) -> Carried:
    """Which image, and where it comes from; nothing large is fetched yet."""
    from nimctl.cli.proofs.images import prove_image
    from nimctl.cli.target import device_for, image_for, resolve

    target = resolve(asked.model or (lock.model if lock else None), config, asked.image)
    # what `nimctl run` is told there: a recipe, or the address or image itself
    name = target.recipe.name if target.recipe.name in recipes.names() else asked.model or target.recipe.name
    if lock is not None:
        identity = lock.image.identity
        if identity.digest:
            return _from_registry(name, identity.reference, identity.digest, identity.platform, config, out)
        prove_image(identity, None, config, out, built=True, carried=())
        return _from_engine(name, identity, out)
    device = device_for(config, target.recipe)
    choice = image_for(target, device, config)
    if choice.how == "pull":
        return _from_registry(name, choice.reference, None, asked.platform or own_platform(), config, out)
    from nimctl.cli import acquire
    from nimctl.launch.docker import Engine

    here = acquire.ensure_image(choice, device, Engine.connect(), out, config)
    return _from_engine(name, here.identity, out)


def _from_registry(
    name: str, reference: str, digest: str | None, platform: str, config: Config, out: Output
) -> Carried:
    from nimctl.cli.proofs.images import prove_image
    from nimctl.registry.artifacts import signatures_of
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    wanted = parse(reference)
    wanted = replace(wanted, digest=digest or wanted.digest)
    login, _ = stored_or_key(wanted.registry, config_folder(), os.environ)
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = resolve_image(wanted, login, platform, name=reference)
        materials = signatures_of(wanted, remote.identity.digests[:2], login)
    out.text(
        f"image {reference} at {remote.identity.digest} for {platform}: {size(remote.size)}, "
        f"{len(materials)} signature{'' if len(materials) == 1 else 's'}"
    )
    documents = [document for document in (remote.index, remote.manifest) if document]
    prove_image(remote.identity, login, config, out, documents=documents, carried=materials)
    return Carried(name, remote.identity, _blobs(remote, wanted, login), materials, remote.manifest)


def _blobs(remote: RemoteImage, reference: Reference, login: Login | None) -> tuple[Item, ...]:
    """Every blob of the image, each once."""
    from nimctl.registry.blobs import open_blob

    items = {}
    for content in filter(None, (remote.config, remote.manifest, remote.index)):
        digest = f"sha256:{sha256(content)}"
        items[digest] = of_bytes(layout.blob_path(digest), content)
    for blob in remote.layers:
        items.setdefault(
            blob.digest,
            Item(
                layout.blob_path(blob.digest),
                blob.size,
                lambda offset, digest=blob.digest: open_blob(reference, digest, login, offset=offset),  # type: ignore[misc]
                blob.digest,
            ),
        )
    return tuple(items.values())


def _from_engine(name: str, identity: ImageIdentity, out: Output) -> Carried:
    from nimctl.launch.docker import Engine, archive

    engine = Engine.connect()
    found = archive.find(engine, identity)
    if found is None:
        raise NimctlError(
            "image-not-found",
            f"the locked image {identity.reference} is not on this host",
            cause=f"it was built and never pushed, and docker knows none of {', '.join(identity.digests)}",
            fix="Make the bundle where it was built, or push it (`nimctl build --push`) and lock again.",
        )
    out.text(f"image {identity.reference} out of the engine, where it was built: {size(found.size or 0)}")
    return Carried(name, identity, id=found.id, saved_size=found.size or 0)


def finish(carried: Carried, packer: Packer, notes: Journal, folder: Path) -> tuple[model.Image, frozenset[str]]:
    """The image once all its blobs are in the folder, and their paths."""
    if carried.manifest is not None:
        manifest, config = carried.manifest, carried.identity.config
        blobs = [item.path for item in carried.items]
    else:
        found = _saved(carried, packer, notes, folder)
        manifest, config = found.manifest, found.config
        blobs = [layout.blob_path(digest) for digest in found.blobs]
    assert config is not None
    for path, content in layout.documents(full_name(carried.identity.reference), manifest).items():
        packer.pack_one(of_bytes(path, content))
    total = sum(packer.entries[path].size for path in blobs)
    digest = f"sha256:{sha256(manifest)}"
    identity = carried.identity
    image = model.Image(identity.reference, identity.digest, digest, config, identity.platform, total)
    return image, frozenset(blobs)


def _saved(carried: Carried, packer: Packer, notes: Journal, folder: Path) -> saved.Saved:
    """The image out of the engine, unless an earlier run finished that."""
    from nimctl.launch.docker import archive

    assert carried.id is not None
    noted = notes.note("saved") or _noted_before(carried, notes, folder)
    blobs = noted.get("blobs")
    if noted.get("id") == carried.id and isinstance(blobs, dict) and {noted["manifest"], noted["config"]} <= set(blobs):
        there = [packer.known(layout.blob_path(digest), count, digest) for digest, count in blobs.items()]
        if all(there):
            content = (folder / layout.blob_path(noted["manifest"])).read_bytes()
            return saved.Saved(content, noted["config"], tuple(blobs))
    image = carried.id
    found = saved.pack_saved(lambda: archive.save(image), packer, folder)
    sizes = {digest: packer.entries[layout.blob_path(digest)].size for digest in found.blobs}
    digest = f"sha256:{sha256(found.manifest)}"
    notes.note("saved", {"id": image, "manifest": digest, "config": found.config, "blobs": sizes})
    return found


def _noted_before(carried: Carried, notes: Journal, folder: Path) -> dict[str, Any]:
    """What would have been noted of the finished bundle in this folder, if it holds the same image."""
    image = notes.before.image if notes.before else None
    if image is None or notes.before is None or not {image.config, image.manifest} & set(carried.identity.digests):
        return {}
    start = f"{model.IMAGE}/blobs/sha256/"
    blobs = {f"sha256:{e.sha256}": e.size for e in notes.before.files if e.path.startswith(start)}
    return {"id": carried.id, "manifest": image.manifest, "config": image.config, "blobs": blobs}


def trust_items(carried: Carried, config: Config, scratch: Path) -> Sequence[Item]:
    """The signatures of the image as files, and the public keys that this user's rules name for it.

    Raises `trust-invalid` for a key that cannot be used.
    """
    from nimctl.cli.proofs.images import image_name, rules_of
    from nimctl.trust.keys import read_public

    items: list[Item] = []
    if carried.materials:
        written = signatures.write_materials(scratch / model.TRUST, carried.materials)
        items += [of_bytes(f"{model.TRUST}/{path.name}", path.read_bytes()) for path in written]
    rule = rules_of(config).for_image(image_name(carried.identity.reference))
    if rule is None:
        return items
    for path in rule.keys:
        read_public(path)
    named = (*rule.keys, *(who.trusted_root for who in rule.keyless if who.trusted_root))
    for number, path in enumerate(dict.fromkeys(named), 1):
        items.append(of_bytes(f"{model.TRUST}/keys/{number:02}-{path.name}", path.read_bytes()))
    return items


def full_name(reference: str) -> str | None:
    """The name as containerd's store wants it: with registry and tag. None where there is no tag. Raises ValueError."""
    from nimctl.registry.reference import parse

    try:
        found = parse(reference)
    except NimctlError as error:
        raise ValueError(error.message) from error
    return f"{found.registry}/{found.repository}:{found.tag}" if found.tag else None

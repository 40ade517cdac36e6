"""The steps of `nimctl bundle create`: what belongs into it, where each part comes from, and the folder filled."""

from __future__ import annotations

import errno
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl import __version__
from nimctl.bundle import journal, model
from nimctl.bundle import weights as weights_layout
from nimctl.bundle.items import Item, of_bytes
from nimctl.bundle.packing import Packer
from nimctl.bundle.sealing import seal
from nimctl.cli.bundles import caches as bundled_caches
from nimctl.cli.bundles import image as bundled_image
from nimctl.cli.bundles import lock as bundled_lock
from nimctl.cli.bundles import weights as bundled_weights
from nimctl.cli.bundles.asked import Asked
from nimctl.cli.bundles.image import Carried
from nimctl.cli.config import Config
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, Stop
from nimctl.core.fetch.manifest import Manifest
from nimctl.core.fetch.sources.checksums import MANIFEST
from nimctl.lock.model import Lock
from nimctl.render import Output, size

if TYPE_CHECKING:
    from nimctl.trust.keys import PrivateKey


@dataclass(frozen=True)
class Content:
    """All that goes into a bundle beside the image of an engine, which comes as a stream."""

    items: tuple[Item, ...]
    image: Carried
    weights: model.Weights | None
    lock: bytes | None
    caches: tuple[model.CompileCache, ...]
    keys: tuple[str, ...] = ()


def create(asked: Asked, config: Config, out: Output) -> None:
    """Fill the folder, and say what is in it."""
    lock, lock_bytes = bundled_lock.choose(asked, out)
    key = _signer(asked.sign_key)
    try:
        with journal.opened(asked.folder) as notes, tempfile.TemporaryDirectory(prefix="nimctl-") as scratch:
            asked = _again(asked, lock, notes, out)
            carried = bundled_image.choose(asked, lock, config, out)
            weights, manifest, weight_items = bundled_weights.gather(asked, lock, config, out)
            caches, cache_items = bundled_caches.gather(config, out) if asked.caches else ((), ())
            trusted = bundled_image.trust_items(carried, config, Path(scratch))
            items = (*carried.items, *weight_items, *cache_items, *trusted)
            content = Content(items, carried, weights, lock_bytes, caches)
            done = _fill(asked, content, lock, manifest, notes, key, out)
    except OSError as error:
        raise _unwritable(asked.folder, error) from error
    _tell(asked, *done, out)


def _fill(
    asked: Asked,
    content: Content,
    lock: Lock | None,
    manifest: Manifest | None,
    notes: journal.Journal,
    key: PrivateKey | None,
    out: Output,
) -> tuple[model.Bundle, int]:
    items = [*content.items]
    if manifest is not None:
        items.append(of_bytes(f"{model.WEIGHTS}/{MANIFEST}", weights_layout.of_manifest(manifest)))
    expected = sum(item.size for item in items) + (content.image.saved_size or 0)
    # Ctrl-C and SIGTERM may come at any point: what is finished is noted, what is not goes on where it ends.
    with out.transfer(f"packing {asked.folder.name}") as view:
        packer = Packer(notes, expected, asked.split, lambda p: view.report(_copying(p), "bundle"), Stop())
        packer.require_room(items, more=content.image.saved_size or 0)
        (asked.folder / model.NAME).unlink(missing_ok=True)
        packer.pack(items)
        image, blobs = bundled_image.finish(content.image, packer, notes, asked.folder)
        lock_bytes = bundled_lock.completed(lock, content.lock, image, out)
        if lock_bytes is not None:
            packer.pack_one(of_bytes(model.LOCK, lock_bytes))
        bundle = _described(content, image, packer, blobs, lock, lock_bytes)
        seal(bundle, notes, key.sign if key else None)
    return bundle, packer.moved


def _copying(progress: Progress) -> Progress:
    return replace(progress, phase="copying") if progress.phase == "fetching" else progress


def _described(
    content: Content,
    image: model.Image,
    packer: Packer,
    blobs: frozenset[str],
    lock: Lock | None,
    lock_bytes: bytes | None,
) -> model.Bundle:
    """The document, without blobs that an engine wrote and no manifest names."""
    folder = f"{model.IMAGE}/blobs/"
    entries = {p: e for p, e in packer.entries.items() if not p.startswith(folder) or p in blobs}
    trust = sorted(path for path in entries if path.startswith(f"{model.TRUST}/"))
    return model.Bundle(
        created_by=f"nimctl {__version__}",
        model=lock.model if lock else content.image.model,
        files=tuple(entries[path] for path in sorted(entries)),
        image=image,
        weights=content.weights,
        lock=model.LOCK if lock_bytes is not None else None,
        signatures=tuple(path for path in trust if not path.startswith(f"{model.TRUST}/keys/")),
        keys=tuple(path for path in trust if path.startswith(f"{model.TRUST}/keys/")),
        caches=content.caches,
    )


def _again(asked: Asked, lock: Lock | None, notes: journal.Journal, out: Output) -> Asked:
    """What was asked for, or where no model was named what an earlier run packed into this folder."""
    if asked.model or lock:
        notes.note("asked", {"model": asked.model, "image": asked.image})
        return asked
    before = {"model": notes.before.model, "image": None} if notes.before else {}
    noted = notes.note("asked") or before
    if not noted.get("model"):
        return asked
    out.text(f"going on with {noted['model']}, which the folder was begun for")
    return replace(asked, model=str(noted["model"]), image=asked.image or noted.get("image"))


def _signer(path: Path | None) -> PrivateKey | None:
    """The private key to sign with, read before anything is done."""
    if path is None:
        return None
    from nimctl.cli.proofs.key_file import private_key

    return private_key(path)


def _tell(asked: Asked, bundle: model.Bundle, moved: int, out: Output) -> None:
    assert bundle.image is not None
    out.text(
        f"{asked.folder} is complete: {len(bundle.pieces) + 2} files, {size(bundle.total)} "
        f"({size(moved)} fetched or copied now)",
        style="bold green",
    )
    out.text(f"verify:  nimctl bundle verify {asked.folder}\nload:    nimctl bundle load {asked.folder}")
    out.document({"ok": True, "bundle": str(asked.folder), "moved": moved, **summary(bundle)})


def summary(bundle: model.Bundle) -> dict[str, object]:
    """What a bundle holds, as part of a JSON document."""
    image, weights = bundle.image, bundle.weights
    return {
        "model": bundle.model,
        "files": len(bundle.pieces),
        "bytes": bundle.total,
        "image": {"reference": image.reference, "digest": image.digest, "manifest": image.manifest,
                  "config": image.config, "platform": image.platform, "bytes": image.size} if image else None,
        "weights": {"source": weights.source, "revision": weights.revision, "bytes": weights.size} if weights else None,
        "lock": bundle.lock,
        "signatures": bundle.signature_count,
        "caches": [cache.key for cache in bundle.caches],
    }  # fmt: skip


def _unwritable(folder: Path, error: OSError) -> NimctlError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NimctlError(
            "disk-full",
            f"{folder} has no room for the bundle",
            cause=f"a write was refused ({error.strerror})",
            fix="Free space there, then run it again: it goes on where it ended.",
        )
    if error.errno == errno.EFBIG:
        return NimctlError(
            "disk-full",
            f"the filesystem of {folder} takes no file of this size",
            cause="FAT32 ends below 4 GiB",
            fix="Run it again with --split 4GiB.",
        )
    return NimctlError(
        "cache-not-writable",
        f"{folder} cannot be filled",
        cause=f"{error.strerror} ({error.filename or folder})",
        fix="Name a folder that this user may write.",
    )

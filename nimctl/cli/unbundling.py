"""The steps of `nimctl bundle verify`, `load` and `ls`. None of them uses a network."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.bundle import checking, model
from nimctl.bundle import image as image_layout
from nimctl.bundle import weights as weights_layout
from nimctl.bundle.problems import invalid
from nimctl.bundle.shelf import Shelf
from nimctl.cli import bundled_caches
from nimctl.cli.bundled_weights import FOLDER
from nimctl.cli.bundling import summary
from nimctl.cli.config import Config
from nimctl.cli.stopping import stoppable
from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.signatures import Material, parse_materials
from nimctl.render import Output, size

if TYPE_CHECKING:
    from nimctl.launch.docker import Engine

_LARGEST_INDEX = 8 * 2**20


def verify(folders: Sequence[Path], key: Path | None, config: Config, out: Output) -> None:
    """Read everything, follow the digests, judge the signatures; say what was proven."""
    shelf = Shelf(folders)
    with stoppable() as (stop, going), out.transfer(f"verifying {shelf.name}") as view:
        going()
        verified = checking.verify_all(shelf, on_progress=lambda p: view.report(p, "bundle"), stop=stop)
    signed = _require_signed(shelf, key, out)
    proof = _prove(shelf, config, out, signed=signed)
    for path in verified.extra[:10]:
        out.text(f"{path} lies there and belongs to nothing; it is not looked at", style="yellow")
    out.text(f"{shelf.name} is whole: {verified.files} files, {size(verified.bytes)}", style="bold green")
    document = {"ok": True, "bundle": shelf.name, **summary(shelf.bundle), "extra": list(verified.extra)}
    out.document({**document, "signed_by": signed, "proof": proof})


def load(folders: Sequence[Path], config: Config, out: Output, *, key: Path | None, to: Path | None) -> None:
    """Image into Docker, weights into the cache, compile caches to their place; each verified on its way."""
    shelf = Shelf(folders)
    with out.working(f"looking at {shelf.name}"):
        checking.require_sound(shelf)
    if shelf.bundle.weights and shelf.bundle.weights.source == FOLDER and to is None:
        raise NimctlError(
            "usage",
            "it is not said where the weights go",
            cause="they came from a folder, so no address leads to them in the cache",
            fix="Name a folder: `nimctl bundle load ... --to /data/model`, then `nimctl run /data/model`.",
        )
    signed = _require_signed(shelf, key, out)
    proof = _prove(shelf, config, out, signed=signed)
    id_ = _load_image(shelf, shelf.bundle.image, out) if shelf.bundle.image else None
    folder = _load_weights(shelf, shelf.bundle.weights, config, out, to) if shelf.bundle.weights else None
    for cache in shelf.bundle.caches:
        bundled_caches.load(shelf, cache, config, out)
    _tell(shelf, folder, out)
    out.document(
        {
            "ok": True,
            "bundle": shelf.name,
            **summary(shelf.bundle),
            "id": id_,
            "folder": str(folder) if folder else None,
            "signed_by": signed,
            "proof": proof,
        }
    )


def show(folders: Sequence[Path], out: Output) -> None:
    """What the document says. Nothing is verified."""
    shelf = Shelf(folders)
    bundle = shelf.bundle
    rows = [("model", bundle.model), ("made by", bundle.created_by)]
    if image := bundle.image:
        rows.append(("image", f"{image.reference} for {image.platform}, {size(image.size)}, {image.manifest}"))
    if weights := bundle.weights:
        rows.append(("weights", f"{weights.source} at {weights.revision}, {size(weights.size)}"))
    rows += [("lock", bundle.lock or "none"), ("signatures", str(len(bundle.signatures)))]
    rows += [("compile cache", cache.key) for cache in bundle.caches]
    rows.append(("files", f"{len(bundle.pieces)}, {size(bundle.total)}"))
    out.facts(rows)
    out.document({"ok": True, "bundle": shelf.name, **summary(bundle)})


def _require_signed(shelf: Shelf, key: Path | None, out: Output) -> str | None:
    """Whose signature of the document it is; None where nobody asked. Raises `signature-*`, `trust-invalid`."""
    there = (shelf.root / model.SIGNATURE).is_file()
    if key is None:
        if there:
            out.text("the bundle is signed; --key KEY.pub says whose signature it has to be", style="dim")
        return None
    from nimctl.trust.keys import read_public

    public = read_public(key)
    if not there:
        raise NimctlError(
            "signature-missing",
            f"the bundle {shelf.name} is not signed",
            cause=f"it holds no {model.SIGNATURE}, and a signature of {key} is asked for",
            fix="Have it made with `nimctl bundle create --sign-key`, or leave --key out.",
        )
    try:
        signature = base64.b64decode(shelf.beside(model.SIGNATURE).strip(), validate=True)
    except binascii.Error:
        signature = b""
    if not public.signed(signature, shelf.document):
        raise NimctlError(
            "signature-invalid",
            f"the bundle {shelf.name} is not signed by {key}",
            cause=f"{model.SIGNATURE} is no signature of this {model.NAME} by that key",
            fix="Use the public key of whoever made it; if it is that one, the bundle was changed: do not load it.",
        )
    out.text(f"signed by {public}")
    return str(public)


def _prove(shelf: Shelf, config: Config, out: Output, *, signed: str | None) -> str | None:
    """The verdict about the image's own signatures. Raises `signature-*` where they are required and not good."""
    image = shelf.bundle.image
    if image is None:
        return None
    from nimctl.cli import kept_signatures, proving

    identity = _identity(image)
    digests = dict.fromkeys(filter(None, (image.digest, image.manifest)))
    documents = [shelf.small(image_layout.blob_path(digest), _LARGEST_INDEX) for digest in digests]
    carried = _signatures_in(shelf)
    proof = proving.prove_image(
        identity,
        None,
        config,
        out,
        documents=documents,
        built=image.digest is None and signed is not None,
        carried=carried,
    )
    # a start looks for them here before it asks a registry; that there are none is known as well
    kept_signatures.keep(identity, carried, documents)
    return str(proof.verdict)


def _signatures_in(shelf: Shelf) -> tuple[Material, ...]:
    """The image's signatures, out of files that are what was packed, wherever they lie. Raises `bundle-*`."""
    if not shelf.bundle.signatures:
        return ()
    try:
        return parse_materials(lambda name, most: shelf.small(f"{model.TRUST}/{name}", most))
    except ValueError as error:
        raise invalid(f"the signatures in it cannot be used: {error}", shelf.name) from error


def _identity(image: model.Image) -> ImageIdentity:
    return ImageIdentity(image.reference, image.digest, image.manifest, image.config, image.platform)


def _load_image(shelf: Shelf, image: model.Image, out: Output) -> str:
    from nimctl.launch.docker import Engine, archive

    engine = Engine.connect()
    identity = _identity(image)
    found = archive.find(engine, identity)
    if found is not None:
        out.text(f"image {image.reference} is here already")
    else:
        _require_room(engine, image)
        total = sum(entry.size for entry in shelf.bundle.below(model.IMAGE))
        done = 0
        with out.transfer(f"loading {image.reference}") as view:

            def on_bytes(count: int) -> None:
                nonlocal done
                done += count
                view.report(Progress(done, total, phase="copying"), "image")

            found = archive.load(engine, image_layout.archive(shelf, on_bytes), identity)
    engine.named(identity, found.id)
    out.text(f"image {image.reference} is {found.id}")
    return found.id


def _require_room(engine: Engine, image: model.Image) -> None:
    """The engine unpacks from a copy of the archive; where its disk is of this host, that has to fit."""
    root = Path(engine.facts.data_root or "/nonexistent")
    if not (engine.facts.endpoint or "").startswith("unix:") or not root.is_dir():
        return
    if free_bytes(root) < image.size:
        raise NimctlError(
            "disk-full",
            f"{root} has no room for the image",
            cause=f"{image.size / 1e9:,.1f} GB are needed and {free_bytes(root) / 1e9:,.1f} GB are free",
            fix="Free space there (`docker system df`, `docker image prune`), then load again.",
        )


def _load_weights(shelf: Shelf, weights: model.Weights, config: Config, out: Output, to: Path | None) -> Path:
    from nimctl.cli import launching, proving_weights
    from nimctl.core.fetch import laying

    launching.make_cache(config.cache, out)
    with stoppable() as (stop, going), out.transfer(f"weights {weights.source}") as view:
        going()
        folder = weights_layout.load(
            shelf, weights, config.cache, on_progress=lambda p: view.report(p, "weights"), stop=stop
        )
        if weights.source == FOLDER and to is not None:
            laying.lay_out(
                weights_layout.manifest_of(shelf), folder, to.absolute(), "files", on_progress=view.report, stop=stop
            )
            folder = to.absolute()
    if weights.source != FOLDER:
        proving_weights.prove_weights(weights.source, folder, config, out)
    out.text(f"weights {weights.source} at {weights.revision}: {size(weights.size)}, verified, in {folder}")
    return folder


def _tell(shelf: Shelf, folder: Path | None, out: Output) -> None:
    bundle = shelf.bundle
    out.text("everything is loaded", style="bold green")
    if bundle.keys:
        out.text(f"public keys came along in {shelf.root / model.TRUST / 'keys'}; whom to trust, your rules say")
    if bundle.lock:
        out.text(f"start:  nimctl run --locked {shelf.place(bundle.lock)}")
    elif bundle.weights and bundle.weights.source == FOLDER:
        out.text(f"start:  nimctl run {folder}")
    else:
        out.text(f"start:  nimctl run {bundle.model}")

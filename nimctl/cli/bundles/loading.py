"""The steps of `nimctl bundle verify`, `load` and `ls`. None of them uses a network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.bundle import checking, model
from nimctl.bundle import image as image_layout
from nimctl.bundle import weights as weights_layout
from nimctl.bundle.shelf import Shelf
from nimctl.bundle.weights import FOLDER
from nimctl.cli.bundles import caches as bundled_caches
from nimctl.cli.bundles import proof as bundled_proof
from nimctl.cli.bundles.image import full_name
from nimctl.cli.bundles.packing import summary
from nimctl.cli.config import Config
from nimctl.cli.stopping import stoppable
from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress
from nimctl.render import Output, size

if TYPE_CHECKING:
    from nimctl.launch.docker import Engine


def verify(folders: Sequence[Path], key: Path | None, config: Config, out: Output) -> None:
    """Read everything, follow the digests, judge the signatures; say what was proven."""
    shelf = Shelf(folders)
    with stoppable() as (stop, going), out.transfer(f"verifying {shelf.name}") as view:
        going()
        verified = checking.verify_all(shelf, full_name, on_progress=lambda p: view.report(p, "bundle"), stop=stop)
    bundled_proof.require_own_lock(shelf)
    signed = bundled_proof.require_signed(shelf, key, out)
    proof = bundled_proof.prove_image(shelf, config, out, signed=signed, keep=False)
    for path in verified.extra[:10]:
        out.text(f"{path} lies there and belongs to nothing; it is not looked at", style="yellow")
    out.text(f"{shelf.name} is whole: {verified.files} files, {size(verified.bytes)}", style="bold green")
    document = {"ok": True, "bundle": shelf.name, **summary(shelf.bundle), "extra": list(verified.extra)}
    out.document({**document, "signed_by": signed, "proof": proof})


def load(
    folders: Sequence[Path], config: Config, out: Output, *, key: Path | None, to: Path | None, caches: bool = False
) -> None:
    """Image into Docker, weights into the cache, compile caches to their place; each verified on its way.

    Compile caches are code that servers run: without a good signature of the bundle they need to be asked for.
    """
    shelf = Shelf(folders)
    with out.working(f"looking at {shelf.name}"):
        checking.require_sound(shelf, full_name)
    _require_place(shelf.bundle.weights, to)
    bundled_proof.require_own_lock(shelf)
    engine = _engine_for(shelf.bundle.image) if shelf.bundle.image else None
    signed = bundled_proof.require_signed(shelf, key, out)
    proof = bundled_proof.prove_image(shelf, config, out, signed=signed, keep=True)
    # weights first: they are judged on the way, and where they are refused nothing else is loaded either
    folder = _load_weights(shelf, shelf.bundle.weights, config, out, to) if shelf.bundle.weights else None
    id_ = _load_image(shelf, shelf.bundle.image, engine, out) if shelf.bundle.image and engine else None
    left_out = _load_caches(shelf, config, out, signed=signed is not None, asked=caches)
    _tell(shelf, folder, out)
    out.document(
        {
            "ok": True,
            "bundle": shelf.name,
            **summary(shelf.bundle),
            "id": id_,
            "folder": str(folder) if folder else None,
            "left_out": left_out,
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
    rows += [("lock", bundle.lock or "none"), ("signatures", str(bundle.signature_count))]
    rows += [("compile cache", cache.key) for cache in bundle.caches]
    rows.append(("files", f"{len(bundle.pieces)}, {size(bundle.total)}"))
    out.facts(rows)
    out.document({"ok": True, "bundle": shelf.name, **summary(bundle)})


def _require_place(weights: model.Weights | None, to: Path | None) -> None:
    """Raises `usage` where it is not said where weights go that have no address, and where it is said of others."""
    from_folder = weights is not None and weights.source == FOLDER
    if from_folder and to is None:
        raise NimctlError(
            "usage",
            "it is not said where the weights go",
            cause="they came from a folder, so no address leads to them in the cache",
            fix="Name a folder: `nimctl bundle load ... --to /data/model`, then `nimctl run /data/model`.",
        )
    if to is not None and not from_folder:
        raise NimctlError(
            "usage",
            f"nothing in the bundle goes to {to}",
            cause=f"its weights are those of {weights.source}, and belong in the cache" if weights else "it holds none",
            fix="Leave --to out; --cache says which cache.",
        )


def _engine_for(image: model.Image) -> Engine:
    """The Docker Engine, which can run it. Raises `platform-missing`, `docker-*`."""
    from nimctl.launch.docker import Engine

    engine = Engine.connect()
    if engine.platform != "/".join(image.platform.split("/")[:2]):
        raise NimctlError(
            "platform-missing",
            f"the image in the bundle is not for {engine.platform}",
            cause=f"it was carried for {image.platform}",
            fix=f"Make the bundle with `nimctl bundle create --platform {engine.platform}`.",
        )
    return engine


def _load_image(shelf: Shelf, image: model.Image, engine: Engine, out: Output) -> str:
    from nimctl.launch.docker import archive

    identity = bundled_proof.identity(image)
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


def _load_caches(shelf: Shelf, config: Config, out: Output, *, signed: bool, asked: bool) -> list[str]:
    """Load compile caches as far as somebody vouches for them; the keys of those that are left out."""
    from nimctl.trust.policy import read_policy

    required = read_policy(config.settings["verify"].value, config.origin("verify")) == "require"
    if signed or (asked and not required):
        for cache in shelf.bundle.caches:
            bundled_caches.load(shelf, cache, config, out)
        return []
    why = "verify is require" if required else "--caches loads it all the same"
    for cache in shelf.bundle.caches:
        out.text(
            f"compile cache {cache.key} is not loaded: it is code that servers would run, and nobody vouches for it "
            f"(--key says whose signature does; {why})",
            style="yellow",
        )
    return [cache.key for cache in shelf.bundle.caches]


def _load_weights(shelf: Shelf, weights: model.Weights, config: Config, out: Output, to: Path | None) -> Path:
    """Into the cache, judged by the rules there, and only then with a name."""
    from nimctl.cli import launching
    from nimctl.cli.proofs import weights as proving_weights

    launching.make_cache(config.cache, out)
    if weights.source == FOLDER:
        folder = _bring(shelf, weights, config, out, named=True, to=to)
    else:
        folder = _bring(shelf, weights, config, out, named=False)
        proving_weights.prove_weights(weights.source, folder, config, out)
        folder = _bring(shelf, weights, config, out, named=True)
    out.text(f"weights {weights.source} at {weights.revision}: {size(weights.size)}, verified, in {folder}")
    return folder


def _bring(
    shelf: Shelf, weights: model.Weights, config: Config, out: Output, *, named: bool, to: Path | None = None
) -> Path:
    from nimctl.core.fetch import laying

    with stoppable() as (stop, going), out.transfer(f"weights {weights.source}") as view:
        going()
        folder = weights_layout.load(
            shelf, weights, config.cache, named=named, on_progress=lambda p: view.report(p, "weights"), stop=stop
        )
        if to is None:
            return folder
        manifest = weights_layout.manifest_of(shelf)
        laying.lay_out(manifest, folder, to.absolute(), "files", on_progress=view.report, stop=stop)
        return to.absolute()


def _tell(shelf: Shelf, folder: Path | None, out: Output) -> None:
    bundle = shelf.bundle
    out.text("everything is loaded", style="bold green")
    if bundle.keys:
        out.text(f"public keys came along in {shelf.root / model.TRUST / 'keys'}; whom to trust, your rules say")
    if bundle.lock:
        out.text(f"start:  nimctl run --locked {shlex.quote(str(shelf.place(bundle.lock)))}")
    elif bundle.weights and bundle.weights.source == FOLDER:
        out.text(f"start:  nimctl run {shlex.quote(str(folder))}")
    else:
        out.text(f"start:  nimctl run {shlex.quote(bundle.model)}")

"""The weights of a bundle: brought into the cache first as every start does it, and carried from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.bundle import model
from nimctl.bundle.items import Item, of_file
from nimctl.bundle.weights import FOLDER
from nimctl.cli.config import Config
from nimctl.core.address import without_secrets
from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import open_source, snapshots
from nimctl.core.fetch.manifest import File, Manifest, revision_of
from nimctl.render import Output, size

if TYPE_CHECKING:
    from nimctl.cli.bundles.asked import Asked
    from nimctl.lock.model import Lock

Gathered = tuple[model.Weights | None, Manifest | None, tuple[Item, ...]]


def gather(asked: Asked, lock: Lock | None, config: Config, out: Output) -> Gathered:
    """What is carried: the weights, their manifest, and an item for each file. Fetches what the cache lacks."""
    from nimctl.cli.target import resolve

    if not asked.weights:
        out.text("no weights are carried (--no-weights)")
        return None, None, ()
    target = resolve(asked.model or (lock.model if lock else None), config, asked.image)
    locked = lock.weights if lock else None
    address = locked.source if locked and locked.source != FOLDER else str(target.folder or target.recipe.weights or "")
    if not address:
        out.text(
            f"the image alone is carried: {target.recipe.name} fetches its weights by itself, and what it leaves in a "
            f"cache nobody can vouch for; carry {config.cache / 'ngc'} yourself after `nimctl pull --weights`",
            style="yellow",
        )
        return None, None, ()
    gathered = _of_folder(target.folder, out) if target.folder else _of_cache(address, config, out)
    weights = gathered[0]
    if locked and weights and weights.size != locked.bytes:
        raise NimctlError(
            "lock-differs",
            f"the weights of {address} are not those of the lock",
            cause=f"they have {weights.size} bytes, and {locked.bytes} are locked",
            fix="Lock what is there now (`nimctl lock`), or bring the locked folder back.",
        )
    return gathered


def _of_cache(uri: str, config: Config, out: Output) -> Gathered:
    from nimctl.cli import bringing, launching

    launching.make_cache(config.cache, out)
    source = open_source(uri, config.cache)
    repo = CachePaths(config.cache).repo(source.repo, source.part)
    folder = bringing.bring(uri, config, out).folder
    manifest = snapshots.complete(RepoPaths(folder.parent.parent), folder.name)
    if manifest is None:
        raise NimctlError(
            "weights-incomplete",
            f"the weights of {uri} are not complete in the cache",
            cause=f"{folder} has no marker that says so",
            fix="Run `nimctl cache verify --repair`, then this again.",
        )
    named = open_source(manifest.source, config.cache)
    if (named.repo, named.part) != (source.repo, source.part):  # fetched from elsewhere: NIM_REPOSITORY_OVERRIDE
        manifest = replace(manifest, source=without_secrets(uri))
    items = tuple(_item(file, folder / file.path) for file in manifest.files)
    refs = _refs(repo, manifest.revision)
    weights = model.Weights(manifest.source, source.repo, source.part, manifest.revision, refs, manifest.total)
    out.text(f"weights {manifest.source} at {manifest.revision}: {len(items)} files, {size(manifest.total)}")
    return weights, manifest, items


def _of_folder(folder: Path, out: Output) -> Gathered:
    """A checkpoint that somebody keeps in a folder: hashed, as nobody has vouched for it."""
    from nimctl.bundle import summing

    source = open_source(str(folder), folder)
    found = source.resolve()
    with out.transfer(f"hashing {folder.name}") as view:
        digests = summing.digests_of([folder / file.path for file in found.files], lambda p: view.report(p, "bundle"))
    files = tuple(File(f.path, f.size, f"sha256:{d}") for f, d in zip(found.files, digests, strict=True))
    manifest = replace(found, source=FOLDER, revision=revision_of(files), files=files)
    items = tuple(_item(file, folder / file.path) for file in files)
    return model.Weights(FOLDER, source.repo, source.part, manifest.revision, (), manifest.total), manifest, items


def _item(file: File, origin: Path) -> Item:
    return of_file(f"{model.WEIGHTS}/{file.path}", origin, file.digest, "weights-corrupt")


def _refs(repo: RepoPaths, revision: str) -> tuple[str, ...]:
    """The names that lead to the revision here, so that they do on the far host."""
    try:
        names = [path.relative_to(repo.refs).as_posix() for path in sorted(repo.refs.rglob("*")) if path.is_file()]
    except OSError:
        return ()
    return tuple(name for name in names if snapshots.revision_at(repo, name) == revision)

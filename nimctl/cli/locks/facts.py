"""What a lock needs to know: the image here and in its registry, the weights, and what the container settles."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nimctl.cli.config import Config
from nimctl.cli.target import Target
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Manifest, from_environment, open_source
from nimctl.core.fetch.retry import Patience
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.platforms import own_platform
from nimctl.lock import making
from nimctl.lock.comparing import same_image
from nimctl.lock.model import LockedImage, LockedOption
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Prepared
    from nimctl.launch.docker import Engine
    from nimctl.launch.docker.engine import ImageInfo

_DRY_RUN_SECONDS = 60.0
# Somebody waits, and nothing is lost when it is asked for again: who has no name is asked for a moment.
_PATIENCE = Patience(unreachable=0.25)
_OFFLINE = ("image-pull-failed", "image-rate-limited", "proxy-refused", "tls-untrusted")


def engine() -> Engine | None:
    """The daemon; None where none answers."""
    from nimctl.launch.docker import Engine

    try:
        return Engine.connect()
    except NimctlError:
        return None


@dataclass(frozen=True)
class FoundImage:
    """The image that a run here would start; `moved` is the digest that its name stands for by now, where it moved."""

    image: LockedImage
    moved: str | None = None


def image_of(prepared: Prepared, engine: Engine | None, before: LockedImage | None, out: Output) -> FoundImage:
    """The image that a run here would start: the one that is on this host, else what its name stands for now.

    Raises `image-not-found` and others where it is neither here nor to be asked for.
    """
    assert prepared.choice is not None  # only images are locked
    reference = prepared.choice.reference
    found = engine.inspect_image(reference) if engine else None
    built = prepared.choice.how == "build"
    here = None
    if found is not None:
        own = found.built(reference) if built else found.identity(reference)
        here = making.image(own, found.labels, {}, before)
    if built:
        if here is None:
            raise NimctlError(
                "image-not-found",
                f"{reference} is not on this host, so there is nothing to lock",
                cause=prepared.choice.origin,
                fix="Build it first: `nimctl pull` (or `nimctl build`), or name one of a registry with --image.",
            )
        return FoundImage(here)
    try:
        remote = remote_image(reference, engine.platform if engine else None, out)
    except NimctlError as error:
        if here is None or error.id not in _OFFLINE:
            raise
        out.text(f"{reference} is taken as it is on this host: {error.message} ({error.cause})", style="dim")
        return FoundImage(here)
    if here is not None and not same_image(here, remote):
        was, now = here.digest or here.config, remote.digest
        out.text(f"digest-changed: {reference} was {was}, now {now}; the one on this host is taken", style="yellow")
        return FoundImage(here, now)
    return FoundImage(remote)


def remote_image(reference: str, platform: str | None, out: Output) -> LockedImage:
    """What `reference` stands for in its registry, with the manifests of all its platforms."""
    from nimctl.registry import manifests
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    wanted = parse(reference)
    login, _ = stored_or_key(wanted.registry, config_folder(), os.environ)
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = resolve_image(wanted, login, platform or own_platform(), name=reference)
    platforms: dict[str, str] = {}
    if remote.index is not None:
        index = manifests.read(remote.index, manifests.OCI_INDEX, reference)
        assert isinstance(index, manifests.Index)  # it was read as one before
        platforms = {entry.platform: entry.blob.digest for entry in index.entries}
    return making.image(remote.identity, remote.labels, platforms, None)


def held(image: LockedImage, engine: Engine | None) -> ImageInfo | None:
    """Exactly the locked image on this host, found by digest alone; None where it is not here.

    A lock claims which digests belong together; one that the daemon knows otherwise is of no image.
    """
    from nimctl.launch.model import pinned

    if engine is None:
        return None
    identity = image.identity
    names = [pinned(image.reference, digest) for digest in (identity.digest, identity.manifest)]
    for name in (*names, identity.config, identity.manifest, identity.digest):
        found = engine.inspect_image(name) if name else None
        if found is not None and found.agrees_with(image.reference, identity.digests):
            return found
    return None


def manifest_of(target: Target, config: Config, *, offline: bool = False, out: Output | None = None) -> Manifest | None:
    """Every file of the weights, without fetching any; None for images that choose their weights themselves.

    What the cache holds of a name is what a start here serves, so it is asked first. Raises as `Source.resolve`.
    """
    if target.recipe.runs != "ours":
        return None
    access = from_environment(os.environ)
    access = replace(access, offline=access.offline or offline)
    address = str(target.folder or target.recipe.weights)
    with out.working("listing the files of the weights") if out else nullcontext():
        return open_source(address, config.cache, access=access, patience=_PATIENCE).resolve()


def has_weights(target: Target, config: Config) -> bool:
    """Whether the weights are here whole, so that what they say of themselves is known."""
    try:
        return manifest_of(target, config, offline=True) is not None
    except NimctlError:
        return False


def settled_options(
    prepared: Prepared, engine: Engine, identity: ImageIdentity, id_: str, out: Output
) -> Mapping[str, LockedOption] | None:
    """The engine options that the container settles on these GPUs, by its own `--dry-run`; None where it cannot say.

    It starts nothing, has no network and no keys, and reads of the weights only what the cache holds.
    """
    from nimctl.launch.docker.once import dry_run_body, run_once
    from nimctl.launch.model import ExactImage

    plan = replace(prepared.plan, exact=ExactImage(id_, identity))
    has_cache = prepared.config.cache.is_dir()
    try:
        with out.working("asking the container what it would tell the engine"):
            code, said = run_once(engine, dry_run_body(plan, cache=has_cache), _DRY_RUN_SECONDS, only_stdout=True)
        return making.options(json.loads(said)) if code == 0 else None
    except (NimctlError, ValueError) as error:  # an image that has no such action, or prints something else
        out.text(f"the container does not say what it would tell the engine: {error}", style="dim")
        return None

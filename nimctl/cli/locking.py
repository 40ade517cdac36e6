"""What is here, as a lock: the plan of this host, its image, its weights, and what the container settles."""

from __future__ import annotations

import json
import os
import platform as platform_module
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimctl import __version__
from nimctl.cli import launching
from nimctl.cli.config import Config
from nimctl.cli.target import Target
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Manifest, from_environment, open_source
from nimctl.core.fetch.retry import Patience
from nimctl.core.gpus import Gpu
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.layout import Layout
from nimctl.lock import making
from nimctl.lock.comparing import same_image
from nimctl.lock.model import Lock, LockedContainer, LockedEngine, LockedGpus, LockedImage, LockedOption
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared
    from nimctl.launch.docker import Engine

_DRY_RUN_SECONDS = 60.0
# Somebody waits, and nothing is lost when it is asked for again: who has no name is asked for a moment.
_PATIENCE = Patience(unreachable=0.25)
_OFFLINE = ("image-pull-failed", "image-rate-limited", "proxy-refused", "tls-untrusted")


def lock_of(
    prepared: Prepared,
    asked: Asked,
    image: LockedImage,
    manifest: Manifest | None,
    options: Mapping[str, LockedOption] | None = None,
) -> Lock:
    """The lock of a plan. `image` and `manifest` are what was found of both."""
    plan, served = prepared.plan, prepared.target.recipe
    variables = [(e.name, e.value) for e in plan.env if e.name in _names_of(asked) and e.name != launching.PROFILE]
    return Lock(
        model=name_of(prepared.target, asked),
        nimctl=__version__,
        image=image,
        recipe=making.recipe(prepared.recipe),
        gpus=gpus_of(prepared.facts.gpus.gpus, plan.layout),
        engine=LockedEngine(image.labels.get(making.ENGINE_VERSION), tuple(plan.argv), options),
        container=LockedContainer(
            plan.security.cap_drop,
            plan.security.no_new_privileges,
            plan.security.read_only,
            dict(plan.security.tmpfs),
            plan.shm_bytes,
        ),
        weights=making.weights(manifest, folder=prepared.target.folder is not None) if manifest else None,
        layout=making.layout(plan.layout, served),
        variables=making.variables(sorted(variables)),
    )


def name_of(target: Target, asked: Asked) -> str:
    """What `nimctl run` is told to serve the same again; of a folder its name, because it lies elsewhere elsewhere."""
    if target.folder is not None:
        return target.folder.name
    return asked.model if asked.model and "/" in asked.model else target.recipe.name


def _names_of(asked: Asked) -> set[str]:
    own = {name for name, _ in asked.locked.variables} if asked.locked else set()
    return own | {item.partition("=")[0] for item in asked.env}


def gpus_of(gpus: tuple[Gpu, ...], layout: Layout | None) -> LockedGpus:
    """The GPUs of a layout; all of them where the image chooses."""
    used = [gpu for gpu in gpus if layout is None or gpu.index in layout.used]
    models = sorted({gpu.name or "unknown" for gpu in used})
    return LockedGpus(len(used), ", ".join(models) or None)


def manifest_of(target: Target, config: Config, *, offline: bool = False) -> Manifest | None:
    """Every file of the weights, without fetching any; None for images that choose their weights themselves.

    What the cache holds of a name is what a start here serves, so it is asked first. Raises as `Source.resolve`.
    """
    if target.recipe.runs != "ours":
        return None
    access = from_environment(os.environ)
    access = replace(access, offline=access.offline or offline)
    address = str(target.folder or target.recipe.weights)
    return open_source(address, config.cache, access=access, patience=_PATIENCE).resolve()


def image_of(prepared: Prepared, engine: Engine | None, before: LockedImage | None, out: Output) -> LockedImage:
    """The image that a run here would start: the one that is on this host, else what its name stands for now.

    Raises `image-not-found` and others where it is neither here nor to be asked for.
    """
    assert prepared.choice is not None  # only images are locked
    reference = prepared.choice.reference
    found = engine.inspect_image(reference) if engine else None
    here = making.image(found.identity(reference), found.labels, {}, before) if found else None
    if prepared.choice.how == "build":
        if here is None:
            raise NimctlError(
                "image-not-found",
                f"{reference} is not on this host, so there is nothing to lock",
                cause=prepared.choice.origin,
                fix="Build it first: `nimctl pull` (or `nimctl build`), or name one of a registry with --image.",
            )
        return here
    try:
        remote = remote_image(reference, engine.platform if engine else None, out)
    except NimctlError as error:
        if here is None or error.id not in _OFFLINE:
            raise
        out.text(f"{reference} is locked as it is on this host: {error.message} ({error.cause})", style="dim")
        return here
    if here is not None and not same_image(here, remote):
        out.text(f"{reference} stands for another image in its registry; the one on this host is locked", "yellow")
        return here
    return remote


def remote_image(reference: str, platform: str | None, out: Output) -> LockedImage:
    """What `reference` stands for in its registry, with the manifests of all its platforms."""
    from nimctl.registry import manifests
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    wanted = parse(reference)
    login, _ = stored_or_key(wanted.registry, config_folder(), os.environ)
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = resolve_image(wanted, login, platform or _own_platform(), name=reference)
    platforms: dict[str, str] = {}
    if remote.index is not None:
        index = manifests.read(remote.index, manifests.OCI_INDEX, reference)
        assert isinstance(index, manifests.Index)  # it was read as one before
        platforms = {entry.platform: entry.blob.digest for entry in index.entries}
    return making.image(remote.identity, remote.labels, platforms, None)


def _own_platform() -> str:
    machine = platform_module.machine()
    return f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def settled_options(prepared: Prepared, engine: Engine, identity: ImageIdentity, id_: str, out: Output) -> Any:
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


def has_weights(target: Target, config: Config) -> bool:
    """Whether the weights are here whole, so that what they say of themselves is known."""
    try:
        return manifest_of(target, config, offline=True) is not None
    except NimctlError:
        return False


def read_lock(path: Path) -> tuple[Lock, str]:
    """The lock in `path`, and the digest of its bytes. Raises `lock-invalid`."""
    from nimctl.lock.reading import LARGEST, invalid, read
    from nimctl.lock.writing import digest_of

    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise invalid(str(path), error.strerror or "it cannot be read") from error
    return read(text, str(path)), digest_of(text)


def values_of(
    variables: Mapping[str, str | None], given: Mapping[str, str], environment: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The variables of a lock with the secrets of this caller in their places. Raises `key-missing`."""
    found: list[tuple[str, str]] = []
    for name, value in variables.items():
        if value is not None:
            found.append((name, value))
            continue
        secret = given.get(name) or environment.get(name)
        if not secret:
            raise NimctlError(
                "key-missing",
                f"the lock wants {name}, and it is not set",
                cause="a lock holds the names of secrets, never their values",
                fix=f"export {name}=... before `nimctl run --locked`.",
            )
        found.append((name, secret))
    return found

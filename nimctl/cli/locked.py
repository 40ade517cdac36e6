"""Locks on behalf of verbs: writing one, seeing whether it still holds, and starting exactly what it says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from nimctl.cli import host, launching, locking
from nimctl.cli.config import Config, Setting
from nimctl.cli.target import ImageChoice, Target, image_for, resolve
from nimctl.core import recipes
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.lock import making
from nimctl.lock.comparing import Difference, compare, difference, same_image
from nimctl.lock.model import FILE_NAME, Lock, LockedImage
from nimctl.lock.writing import digest_of, write
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared
    from nimctl.core.recipes import Recipe
    from nimctl.launch.docker import Engine

WEIGHTS_DIGEST = "NIMCTL_WEIGHTS_DIGEST"


@dataclass(frozen=True)
class Made:
    """A lock that was written: the digest of its file, whether that is another than before, what it leaves open."""

    digest: str
    changed: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """A lock that was read: what it says, and the digest of its file."""

    lock: Lock
    digest: str
    path: Path


def make(asked: Asked, config: Config, path: Path, out: Output) -> Made:
    """Write the lock of what a run would start here; the file is replaced whole, and only where it changes."""
    _require_docker(config)
    before = None
    with suppress(NimctlError):
        before = locking.read_lock(path)[0]
    prepared = launching.prepare(asked, config, out)
    lock, notes = _here(prepared, asked, before.image if before else None, out, settle=True)
    if lock.engine.options is None and before is not None and not compare(before, lock):
        lock = replace(lock, engine=replace(lock.engine, options=before.engine.options))
    text = write(lock).encode()
    changed = not path.is_file() or path.read_bytes() != text
    if changed:
        _replace(path, text)
    return Made(digest_of(text), changed, notes)


def _replace(path: Path, text: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(text)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NimctlError(
            "usage", f"{path} cannot be written", cause=str(error), fix="Name a file in a folder you may write."
        ) from error


def _here(
    prepared: Prepared, asked: Asked, before: LockedImage | None, out: Output, *, settle: bool
) -> tuple[Lock, tuple[str, ...]]:
    """The lock of what is here and what it leaves open, in sentences."""
    engine = _engine()
    try:
        image = locking.image_of(prepared, engine, before, out)
        with out.working("listing the files of the weights"):
            manifest = locking.manifest_of(prepared.target, prepared.config)
        options = None
        if settle and engine is not None and locking.has_weights(prepared.target, prepared.config):
            found = engine.inspect_image(prepared.choice.reference) if prepared.choice else None
            if found is not None and prepared.plan.kind == "ours":
                identity = found.identity(image.reference)
                options = locking.settled_options(prepared, engine, identity, found.id, out)
    finally:
        if engine is not None:
            engine.close()
    lock = locking.lock_of(prepared, asked, image, manifest, options)
    return lock, tuple(_left_open(lock))


def _left_open(lock: Lock) -> list[str]:
    notes = []
    if lock.weights is None:
        notes.append("weights-by-image: NVIDIA's image chooses its weights and its layout; only the image is locked.")
    elif lock.weights.unhashed:
        count = len(lock.weights.unhashed)
        notes.append(
            f"weights-unhashed: {lock.weights.source} has no hashes for {count} of {len(lock.weights.files)} files; "
            "their names and sizes alone are locked."
        )
    if lock.image.digest is None:
        notes.append("image-not-pushed: The image is in no registry, so another host must build or load the same one.")
    if lock.weights is not None and lock.engine.options is None:
        notes.append(
            "options-open: The settled engine options are not recorded, because image or weights are not here; "
            "what decides them is locked."
        )
    return notes


def _engine() -> Engine | None:
    from nimctl.launch.docker import Engine

    try:
        return Engine.connect()
    except NimctlError:
        return None


def _require_docker(config: Config) -> None:
    if host.runtime_of(config) != "docker":
        raise NimctlError(
            "usage",
            "only runs in docker can be locked",
            cause="a process runs what is installed on this host, and no image",
            fix="Leave --runtime process out (and `runtime` of the configuration).",
        )


def read(path: Path) -> Read:
    """The lock in `path`. Raises `lock-invalid`."""
    lock, digest = locking.read_lock(path)
    return Read(lock, digest, path)


def refuse_beside_check(
    model: str | None, image: str | None, env: Sequence[str] | None, profile: str | None, arguments: Sequence[str]
) -> None:
    """The lock says what is checked. Raises `usage`."""
    given = {"--image": image, "--env": env, "--profile": profile, "engine arguments": arguments}
    if model is not None and not Path(model).is_dir():
        given["MODEL"] = model
    if named := [name for name, value in given.items() if value]:
        raise NimctlError(
            "usage",
            f"--check takes no {', '.join(named)}",
            cause="the lock itself says what is to be checked",
            fix="Leave it out, or lock anew without --check.",
        )


def check(path: Path, config: Config, out: Output) -> Read:
    """The lock in `path`, if a lock that is made here and now would say the same. Raises `lock-differs`."""
    _require_docker(config)
    found = read(path)
    prepared, asked = _plan(found, config, out, folder=None, given={}, pin=False, ask=True)
    lock, _ = _here(prepared, asked, found.lock.image, out, settle=True)
    if rows := compare(found.lock, lock):
        refuse(found, rows, out)
    return found


def refuse(found: Read, rows: Sequence[Difference], out: Output) -> NoReturn:
    """End with `lock-differs` and every difference: what, both sides and the way out."""
    tell(rows, "here", out)
    first = rows[0]
    error = NimctlError(
        "lock-differs",
        f"{found.path} and this host differ in {len(rows)} thing{'s' if len(rows) != 1 else ''}",
        cause=f"{first.what} is locked as {first.locked}, and here it is {first.here}",
        fix=first.fix,
    )
    out.error(error, {"file": str(found.path), "lock": found.digest, "differences": [row.to_json() for row in rows]})
    raise SystemExit(error.exit_code)


def tell(rows: Sequence[Difference], here: str, out: Output) -> None:
    """The differences for people: digests do not fit beside each other."""
    for row in rows:
        out.text(row.what, style="bold")
        out.text(f"  {'locked':<8} {row.locked}")
        out.text(f"  {here:<8} {row.here}")
        out.text(f"  {'way out':<8} {row.fix}", style="dim")


@dataclass(frozen=True)
class Given:
    """What the command line of `run --locked` said that a lock says too; None where nothing was said."""

    model: str | None = None
    image: str | None = None
    env: Sequence[str] = ()
    profile: str | None = None
    engine_args: Sequence[str] = ()
    name: str | None = None


def file_of(model: str | None) -> tuple[Path, str | None]:
    """The lock file and the model of `run --locked [FILE|MODEL]`."""
    if model is not None and (model.endswith(".lock") or Path(model).is_file()):
        return Path(model), None
    return Path(FILE_NAME), model


def prepare(path: Path, given: Given, config: Config, out: Output) -> Prepared:
    """The plan that starts exactly what the lock says. Raises `lock-invalid`, `lock-differs`, and `usage` for what
    contradicts it, before anything is fetched.

    Where image and weights are here, nobody else is asked for anything.
    """
    found = read(path)
    lock = found.lock
    _require_docker(config)
    folder = _refuse_contradictions(lock, given)
    env = dict(item.partition("=")[::2] for item in given.env)
    engine = _engine()
    try:
        held = _held(lock.image, engine)
        platform = engine.platform if engine else lock.image.platform
    finally:
        if engine is not None:
            engine.close()
    complete = held is not None and _weights_are_here(lock, folder, config)
    prepared, asked = _plan(found, config, out, folder=folder, given=env, pin=True, ask=not complete, name=given.name)
    image = replace(lock.image, platform=platform)
    rows: tuple[Difference, ...] = ()
    if held is None and lock.image.digest is None:
        rows = (difference("image", lock.image.config or "built elsewhere", "not on this host"),)
    manifest = locking.manifest_of(prepared.target, config, offline=complete)
    here = locking.lock_of(prepared, asked, image, manifest)
    rows += compare(replace(lock, engine=replace(lock.engine, options=None)), here)
    if rows:
        refuse(found, rows, out)
    reference = lock.image.reference if held else exact_reference(lock.image)
    how: Literal["pull", "build"] = "pull" if lock.image.digest else "build"
    choice = ImageChoice(reference, f"the lock {path}", how, lock.image.identity, held)
    return replace(prepared, choice=choice, locked=lock.image.identity)


def exact_reference(image: LockedImage) -> str:
    """The name under which a registry gives exactly the locked image."""
    from nimctl.launch.model import pinned

    return pinned(image.reference, image.digest) or image.reference


def _held(image: LockedImage, engine: Engine | None) -> str | None:
    """What the daemon calls exactly the locked image, found by digest alone; None where it is not here."""
    from nimctl.launch.model import pinned

    if engine is None:
        return None
    identity = image.identity
    names = [pinned(image.reference, digest) for digest in (identity.digest, identity.manifest)]
    for name in (*names, identity.config, identity.manifest, identity.digest):
        found = engine.inspect_image(name) if name else None
        if name and found is not None and same_image(image, making.image(found.identity(name), {}, {}, None)):
            return found.id
    return None


def _weights_are_here(lock: Lock, folder: Path | None, config: Config) -> bool:
    if lock.weights is None or folder is not None:
        return True
    recipe = recipes.Recipe(lock.model, lock.model, "ours", ("x",), weights=lock.weights.source)
    return locking.has_weights(Target(recipe, "the lock"), config)


def _refuse_contradictions(lock: Lock, given: Given) -> Path | None:
    """The folder of the weights, where the lock is of one. Raises `usage` for what the lock says otherwise."""
    wanted: list[str] = []
    folder = None
    if lock.weights is not None and lock.weights.source == making.FOLDER:
        folder = Path(given.model or lock.model).expanduser().absolute()
    elif given.model is not None and given.model != lock.model:
        wanted.append(f"MODEL {given.model} (the lock has {lock.model})")
    if given.image is not None and given.image != lock.image.reference:
        wanted.append(f"--image {given.image} (the lock has {lock.image.reference})")
    if given.profile is not None and (
        lock.layout is None or given.profile not in (lock.layout.profile, lock.layout.id)
    ):
        wanted.append(f"--profile {given.profile}" + (f" (the lock has {lock.layout.profile})" if lock.layout else ""))
    if given.engine_args and tuple(given.engine_args) != lock.engine.arguments:
        wanted.append(f"engine arguments (the lock has {' '.join(lock.engine.arguments) or 'none'})")
    for item in given.env:
        name, equals, value = item.partition("=")
        known = lock.variables.get(name, "")
        if name not in lock.variables or (known is not None and equals and value != known):
            wanted.append(f"--env {name}")
    if wanted:
        raise NimctlError(
            "usage",
            f"the command line contradicts the lock: {'; '.join(wanted)}",
            cause="a locked run starts what the lock says, and nothing else",
            fix="Leave it out, or lock what you want now with `nimctl lock`. Address, port, name and cache are free.",
        )
    return folder


def _plan(
    found: Read,
    config: Config,
    out: Output,
    *,
    folder: Path | None,
    given: dict[str, str],
    pin: bool,
    ask: bool,
    name: str | None = None,
) -> tuple[Prepared, Asked]:
    """The plan of what the lock says on this host. Raises `lock-differs` where these GPUs or this version of nimctl
    cannot plan it at all."""
    lock = found.lock
    if lock.gpus.count == 0 and config.text("gpus") is None:
        config = replace(config, settings={**config.settings, "gpus": Setting("none", "the lock")})
    target = _target(lock, folder, config, pin=pin)
    with_port = pin
    facts = host.look(config, out, target, try_port=with_port, ask=ask)
    rows = _differs_already(lock, target.recipe, config, facts)
    variables = locking.values_of(lock.variables, given, os.environ)
    env = []
    if pin and lock.weights is not None and (folder is not None or not lock.weights.unhashed):
        env.append((WEIGHTS_DIGEST, lock.weights.digest))
    asked = launching.Asked(
        lock.model,
        name=name,
        profile=lock.layout.profile if lock.layout else None,
        engine_args=lock.engine.arguments,
        locked=launching.Locked(
            target=target,
            weights=lock.weights.source if pin and lock.weights and folder is None else None,
            choice=_choice(lock, target, config, facts),
            facts=facts,
            variables=tuple(variables),
            env=tuple(env),
            labels=(("io.nimctl.lock", found.digest),) if pin else (),
        ),
    )
    try:
        return launching.prepare(asked, config, out), asked
    except NimctlError:
        if not rows:
            raise
        refuse(found, rows, out)


def _differs_already(lock: Lock, recipe: Recipe, config: Config, facts: HostFacts) -> tuple[Difference, ...]:
    """What makes a plan fail for a reason that a difference tells better."""
    from nimctl.launch.devices import choose_gpus

    rows = []
    now = making.recipe(recipe)
    if now != lock.recipe:
        rows.append(difference("recipe.sha256", lock.recipe.sha256, now.sha256))
    try:
        chosen, _ = choose_gpus(recipe, config.text("gpus"), facts)
    except NimctlError:
        chosen = ()
    there = locking.gpus_of(chosen, None)
    if there != lock.gpus:
        words = [f"{gpus.count} x {gpus.model}" if gpus.count else "none" for gpus in (lock.gpus, there)]
        rows.append(difference("gpus", *words))
    return tuple(rows)


def _target(lock: Lock, folder: Path | None, config: Config, *, pin: bool) -> Target:
    """The model of the lock, described by its weights at their revision where it has no recipe."""
    from nimctl.cli import weights

    def describe(address: str) -> Recipe:
        source = lock.weights.source if pin and lock.weights else address
        served = weights.served_name(address)
        recipe = weights.describe(source, config)
        return replace(recipe, name=served, served_names=(served,), weights=address)

    if folder is not None:
        return resolve(str(folder), config)
    target = resolve(lock.model, config, describe=describe if "/" in lock.model else None)
    return replace(target, origin="the lock")


def _choice(lock: Lock, target: Target, config: Config, facts: HostFacts) -> ImageChoice:
    """The image by its name; one that would be built here is never looked for in a registry."""
    gpus = host.wanted_gpus(config, target.recipe, facts)
    usual = image_for(target, "cpu" if gpus == "none" else "cuda", config)
    if usual.reference == lock.image.reference:
        return usual
    return ImageChoice(lock.image.reference, "the lock", "pull" if lock.image.digest else "build")

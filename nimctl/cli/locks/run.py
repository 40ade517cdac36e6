"""`nimctl run --locked`: the plan that starts exactly what a lock says, or what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nimctl.cli.config import Config
from nimctl.cli.locks import contradictions
from nimctl.cli.locks import facts as lock_facts
from nimctl.cli.locks import file as lock_file
from nimctl.cli.locks import plan as locked_plan
from nimctl.cli.locks.contradictions import Given
from nimctl.cli.locks.differences import refuse
from nimctl.cli.locks.of_plan import lock_of
from nimctl.cli.target import ImageChoice, Target
from nimctl.core import recipes
from nimctl.launch.model import pinned
from nimctl.lock import making
from nimctl.lock.comparing import Difference, compare, difference
from nimctl.lock.model import Lock, LockedImage
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Prepared


def prepare(path: Path, given: Given, config: Config, out: Output) -> Prepared:
    """The plan that starts exactly what the lock says. Raises `lock-invalid`, `lock-differs`, and `usage` for what
    contradicts it, before anything is fetched.

    Where image and weights are here, nobody else is asked for anything.
    """
    found = lock_file.read(path)
    lock = found.lock
    locked_plan.require_docker(config)
    folder = contradictions.refuse_contradictions(lock, given)
    engine = lock_facts.engine()
    try:
        held = lock_facts.held(lock.image, engine)
        platform = engine.platform if engine else lock.image.platform
    finally:
        if engine is not None:
            engine.close()
    complete = held is not None and _weights_are_here(lock, folder, config)
    prepared, asked = locked_plan.plan(
        found, config, out, folder=folder, given=given.variables, pin=True, ask=not complete, name=given.name, held=held
    )
    image = replace(lock.image, platform=platform)
    if held is not None:
        image = replace(image, labels=making.labels_of(held.labels))
    rows: tuple[Difference, ...] = ()
    if held is None and lock.image.digest is None:
        rows = (difference("image", lock.image.config or "built elsewhere", "not on this host"),)
    manifest = lock_facts.manifest_of(prepared.target, config, offline=complete)
    here = lock_of(prepared, asked, image, manifest)
    rows += compare(replace(lock, engine=replace(lock.engine, options=None)), here)
    if rows:
        refuse(found, rows, out)
    reference = lock.image.reference if held else exact_reference(lock.image)
    how: Literal["pull", "build"] = "pull" if lock.image.digest else "build"
    choice = ImageChoice(reference, f"the lock {path}", how, lock.image.identity, held.id if held else None)
    return replace(prepared, choice=choice, locked=lock.image.identity)


def exact_reference(image: LockedImage) -> str:
    """The name under which a registry gives exactly the locked image."""
    return pinned(image.reference, image.digest) or image.reference


def _weights_are_here(lock: Lock, folder: Path | None, config: Config) -> bool:
    if lock.weights is None or folder is not None:
        return True
    recipe = recipes.Recipe(lock.model, lock.model, "ours", ("x",), weights=lock.weights.source)
    return lock_facts.has_weights(Target(recipe, "the lock"), config)

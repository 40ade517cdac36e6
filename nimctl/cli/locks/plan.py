"""The plan of what a lock says, on this host."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli import host, launching
from nimctl.cli.config import Config, Setting
from nimctl.cli.locks import contradictions
from nimctl.cli.locks.differences import refuse
from nimctl.cli.locks.file import Read
from nimctl.cli.locks.of_plan import gpus_of
from nimctl.cli.target import ImageChoice, Target, image_for, resolve
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts, ImageFacts
from nimctl.lock import making
from nimctl.lock.comparing import Difference, difference
from nimctl.lock.model import Lock, LockedImage
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared
    from nimctl.core.recipes import Recipe
    from nimctl.launch.docker.engine import ImageInfo

WEIGHTS_DIGEST = "NIMCTL_WEIGHTS_DIGEST"


def require_docker(config: Config) -> None:
    """Refuse (`usage`) a runtime that has no image to lock."""
    if host.runtime_of(config) != "docker":
        raise NimctlError(
            "usage",
            "only runs in docker can be locked",
            cause="a process runs what is installed on this host, and no image",
            fix="Leave --runtime process out (and `runtime` of the configuration).",
        )


def plan(
    found: Read,
    config: Config,
    out: Output,
    *,
    folder: Path | None,
    given: dict[str, str],
    pin: bool,
    ask: bool,
    name: str | None = None,
    held: ImageInfo | None = None,
) -> tuple[Prepared, Asked]:
    """The plan of what the lock says on this host. Raises `lock-differs` where these GPUs or this version of nimctl
    cannot plan it at all."""
    lock = found.lock
    if lock.gpus.count == 0 and config.text("gpus") is None:
        config = replace(config, settings={**config.settings, "gpus": Setting("none", "the lock")})
    target = _target(lock, folder, config, pin=pin)
    facts = host.look(config, out, target, try_port=pin, ask=ask)
    if pin:
        facts = replace(facts, image=_image_facts(lock.image, held))
    rows = _differs_already(lock, target.recipe, config, facts)
    variables = contradictions.values_of(lock.variables, given, os.environ)
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


def _image_facts(image: LockedImage, held: ImageInfo | None) -> ImageFacts:
    """What asks of driver and GPUs: the image that is started, whatever its name stands for on this host."""
    if held is None:
        return ImageFacts(image.reference, present=False)
    return ImageFacts(image.reference, True, held.name(image.reference), held.architecture).described(held.labels)


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
    there = gpus_of(chosen, None)
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

"""Looking at the host on behalf of a verb: facts gathered once, from here or from a file."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from nimctl.cli.config import Config
from nimctl.cli.target import Target, image_for
from nimctl.core import facts as host_facts
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HeldWeights, HostFacts, ImageFacts
from nimctl.core.gpus import GpuInventory
from nimctl.core.injection import WORDS, Mode
from nimctl.core.recipes import Recipe
from nimctl.core.secret import redact
from nimctl.doctor.model import USUAL_UID, Needs
from nimctl.render import Output

_LARGEST_FACTS = 64 * 2**20  # bytes; a host of 1,024 GPUs has two


def look(
    config: Config,
    out: Output,
    target: Target | None,
    *,
    replay: Path | None = None,
    try_port: bool = True,
    ask: bool = True,
) -> HostFacts:
    """The facts of this host, for a target or for none, or those saved in `replay`.

    Without `try_port` the port is left alone; without `ask` no other host is asked for anything.

    Raises `facts-invalid` for a file that holds no facts.
    """
    if replay is not None:
        return read(replay)
    from nimctl.doctor.facts import Subject, gather

    with out.working("looking at this host"):
        return gather(
            Subject(
                cache=config.cache,
                host=str(config.text("host")),
                port=config.number("port"),
                environment=os.environ,
                uid=os.getuid() or USUAL_UID,
                try_port=try_port,
                **_questions(target, config, ask=ask),
            )
        )


def _questions(target: Target | None, config: Config, *, ask: bool) -> dict[str, Any]:
    """What of a `Subject` depends on the model: none of it is asked when there is no model."""
    if target is None:
        return {}
    from nimctl.cli import reaching

    in_docker = config.text("runtime") == "docker"
    here = {
        "image": partial(_image, target, config) if in_docker else None,
        "held": partial(_held, target, config),
    }
    if not ask:
        return here
    return here | {
        "image_access": reaching.image_access(target, config, os.environ) if in_docker else None,
        "destinations": partial(reaching.destinations, target, config, os.environ),
    }


def _image(target: Target, config: Config, gpus: GpuInventory) -> ImageFacts | None:
    """The image that a run would use, as far as it is on this host."""
    from nimctl.launch.docker import look_at_image

    asked = config.text("gpus") or ("none" if target.recipe.cpu and not gpus.gpus else "all")
    return look_at_image(image_for(target, "cpu" if asked == "none" else "cuda", config).reference)


def _held(target: Target, config: Config) -> HeldWeights | None:
    """What is here already needs no room: a folder, or what the cache holds, parts too."""
    recipe = target.recipe
    if target.folder is not None:
        return HeldWeights(recipe.weights, recipe.weights_bytes or 0, complete=True)
    if not recipe.weights or recipe.weights.startswith("builtin://"):  # these come with the container
        return None
    from nimctl.cli import weights  # brings the room of the network, which costs a tenth of a second

    return weights.held(recipe.weights, config)


def save(facts: HostFacts, path: Path) -> None:
    """Write facts to a file that can be attached to a bug report and replayed with `--facts`."""
    text = json.dumps(host_facts.to_json(facts), indent=2)  # in ASCII, whatever the names on this host
    try:
        path.write_text(redact(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise NimctlError(
            "usage", f"{path} cannot be written", cause=str(error), fix="Name a file in a folder you may write."
        ) from error


def read(path: Path) -> HostFacts:
    """The facts saved in `path`. Raises `facts-invalid` for a file that holds none."""
    fix = "Name a file of --save-facts."
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FACTS + 1)
        if len(text) > _LARGEST_FACTS:
            raise ValueError("it is too large to be one")
        data = json.loads(text, parse_constant=_no_number)
    except OSError as error:
        why = error.strerror or "it cannot be opened"
        raise NimctlError("facts-invalid", f"{path} cannot be read", cause=why, fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise NimctlError("facts-invalid", f"{path} cannot be read as JSON", cause=str(error), fix=fix) from error
    return host_facts.from_json(data)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def runtime_of(config: Config) -> Literal["docker", "process"]:
    """The runtime that was asked for. Raises `config-invalid` for a third kind."""
    value = config.text("runtime")
    if value not in ("docker", "process"):
        raise NimctlError(
            "config-invalid",
            f"runtime {value!r} does not exist",
            cause=f"it comes from {config.origin('runtime')}",
            fix="Use docker or process.",
        )
    return cast(Literal["docker", "process"], value)


def gpu_mode_of(config: Config) -> Mode | None:
    """The way in which docker is to hand over GPUs; None: the first that works. Raises `config-invalid` for another."""
    value = config.text("gpu_mode")
    if value is not None and value not in WORDS:
        raise NimctlError(
            "config-invalid",
            f"gpu_mode {value!r} does not exist",
            cause=f"it comes from {config.origin('gpu_mode')}",
            fix=f"Use {', '.join(WORDS)}, or leave it out.",
        )
    return cast(Mode | None, value)


def wanted_gpus(config: Config, recipe: Recipe, facts: HostFacts) -> str:
    """The GPUs to use, as `--gpus` spells them.

    Nothing asked: all of them; where the host has none, none for recipes that run on the CPU. A recipe that needs
    GPUs never falls back: it gets `all` and fails with `gpu-missing`.
    """
    asked = config.text("gpus")
    if asked is not None:
        return asked
    return "none" if recipe.cpu and not facts.gpus.gpus else "all"


def needs_for(target: Target, config: Config, gpus: str, facts: HostFacts) -> Needs:
    """What the host is judged for; whatever depends on the machine is taken from the facts, which may be another's."""
    return Needs(recipe=target.recipe, runtime=runtime_of(config), gpus=gpus, uid=facts.system.uid)

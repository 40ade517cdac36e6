"""What starts a plan: the engine's arguments and the `docker run` line, each value with its origin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nimctl import __version__
from nimctl.cli.config import Config
from nimctl.cli.gpus_of_plan import Place
from nimctl.cli.model_of_plan import Subject
from nimctl.cli.target import image_for
from nimctl.core import keys
from nimctl.core.engine_options import Layer, merge, options_of, parse_options, resolve
from nimctl.core.errors import NimctlError
from nimctl.core.facts import (
    CacheFacts,
    CredentialFacts,
    DockerFacts,
    HostFacts,
    PortFacts,
    SystemFacts,
    ToolkitFacts,
)
from nimctl.core.planning.candidate import Candidate
from nimctl.core.planning.deciding import layout_of
from nimctl.core.planning.document import PlannedArgument, PlannedSetting
from nimctl.core.planning.survey import Survey
from nimctl.launch import handover
from nimctl.launch.model import RunOptions
from nimctl.launch.plan import docker_run_line, explain, make_plan

# A host as NVIDIA's pages want it: what is assumed of one that was not looked at.
_DOCKER = DockerFacts("ok", kind="engine", runtimes=("nvidia", "runc"), default_runtime="runc")
_TOOLKIT = ToolkitFacts(hook="/usr/bin/nvidia-container-runtime-hook")
_ASSUMED = (
    "docker-assumed: The command is for a host whose Docker has NVIDIA's runtime; `nimctl run --dry-run` there shows "
    "the one for that host."
)
# Of a user and a host that nobody has looked at: the first user's number, and where the weights lie by default.
_UID, _CACHE = 1000, Path("/home/you/.cache/nim")
_TOLD = "gpus-unused"  # the plan itself tells of idle GPUs, and why this layout was chosen
# What keeps a command from being shown, and not a plan from being made: the saved host's Docker, and what the container
# would say of a checkpoint whose configuration tells less than its headers.
_NO_COMMAND = ("gpu-runtime-missing", "gpu-missing", "no-layout")


@dataclass(frozen=True)
class Line:
    """The command (None where there is none), its settings, and what to know of it."""

    command: str | None
    settings: tuple[PlannedSetting, ...] = ()
    notes: tuple[str, ...] = ()


def arguments(found: Survey, words: Sequence[str], place: Place) -> tuple[PlannedArgument, ...]:
    """The engine's arguments that this plan rests on, each from where it comes; later origins win."""
    chosen, recipe = found.plan.best, found.recipe
    layers = (
        Layer(f"recipe {recipe.name}", options_of(recipe.engine.common.args)),
        Layer("the plan", options_of(_sizes(chosen) | _across_nodes(chosen, place) | dict(chosen.arguments))),
        Layer("the command line", parse_options(tuple(words))),
    )
    return tuple(PlannedArgument(one.option.name, one.option.words, one.source) for one in resolve(layers))


def line(
    found: Survey | None,
    subject: Subject,
    place: Place,
    config: Config,
    words: Sequence[str],
    *,
    pinned: bool = False,
) -> Line:
    """The `docker run` line for what `found` chose; None stands for NVIDIA's image, and for the CPU.

    `pinned` sizes are passed on, where the container would choose others by itself.
    """
    chosen = found.plan.best if found else None
    if chosen and place.cluster.nodes > 1 and chosen.parallel.world > len(place.cluster.slots):
        return Line(None, notes=(_several_nodes(chosen, place),))
    if subject.recipe.runs == "nim" and place.cluster.nodes > 1:
        return Line(None, notes=("one-machine: nimctl starts NVIDIA's image on one machine.",))
    facts, assumed = _facts(place, config)
    # Of a checkpoint without a recipe the container reads the configuration alone, so that it may decide otherwise.
    decided = layout_of(found.plan) if found and subject.read is None else None
    try:
        launch = make_plan(_options(found, subject, place, config, words, pinned=pinned), facts, decided=decided)
    except NimctlError as error:
        if error.id not in _NO_COMMAND and not error.id.startswith("docker-"):
            raise
        return Line(None, notes=(f"{error.id}: No command is shown: {error.message}, because {error.cause}.",))
    settings = tuple(PlannedSetting(*row) for row in explain(launch))
    notes = [_ASSUMED] if assumed and launch.gpu.devices else []
    if _cache(place, config) == _CACHE:
        notes.append(f"folder-assumed: {_CACHE} stands for the folder for weights on that host; --cache names it.")
    if found and launch.layout and launch.layout.name != layout_of(found.plan).name:
        notes.append(
            f"container-decides: By the configuration alone the container would take {launch.layout.name}; give it the "
            "sizes of this plan as engine arguments."
        )
    said = {_TOLD, *(_id(note) for note in place.notes)}
    notes += [note for note in launch.notes if _id(note) not in said]
    return Line(docker_run_line(launch), settings, tuple(notes))


def _id(note: str) -> str:
    return note.partition(":")[0]


def _options(
    found: Survey | None,
    subject: Subject,
    place: Place,
    config: Config,
    words: Sequence[str],
    *,
    pinned: bool,
) -> RunOptions:
    target = subject.target
    recipe = replace(subject.recipe.on(found.plan.best.model.format), variants=()) if found else subject.recipe
    engine = merge(options_of(_sizes(found.plan.best)) if found and pinned else (), parse_options(tuple(words)))
    choice = image_for(target, "cuda" if place.cluster.slots else "cpu", config)
    origins = {key: config.origin(key) for key in ("host", "port", "cache")}
    origins |= {"model": target.origin, "image": choice.origin}
    origins["engine_args"] = "the plan" + (" and the command line" if words else "") if pinned else "the command line"
    surroundings = handover.passed(os.environ)
    if place.elsewhere:  # proxies and trusted CAs are this machine's own
        surroundings = tuple(pair for pair in surroundings if pair[0] not in (handover.CA_FILE, *handover.PROXIES))
    origins["gpus"] = config.origin("gpus") if place.gpus is not None else "default"
    return RunOptions(
        recipe=recipe,
        image=choice.reference,
        name=recipe.name,
        gpus=place.gpus,
        host=str(config.text("host")),
        port=config.number("port"),
        cache=_cache(place, config),
        engine_args=tuple(word for option in engine for word in option.words),
        uid=(_of_saved(place) or _UID) if place.elsewhere else os.getuid(),
        assume_gpus=True,
        secrets_present=(*keys.present(os.environ, needed=recipe.key), *handover.present(os.environ)),
        surroundings=surroundings,
        model_path=str(target.folder) if target.folder else None,
        origins=origins,
    )


def _of_saved(place: Place) -> int | None:
    """The user of the saved host; root looks at hosts more often than it starts servers."""
    return place.facts.system.uid if place.facts else None


def _cache(place: Place, config: Config) -> Path:
    """The folder for weights: on another host its own where nobody named one, as the default is this user's home."""
    if not place.elsewhere or config.origin("cache") != "default":
        return config.cache
    return Path(place.facts.cache.path) if place.facts else _CACHE


def _facts(place: Place, config: Config) -> tuple[HostFacts, bool]:
    """The host to start on: the saved one, or one with these GPUs that is set up as NVIDIA's pages want it."""
    if place.facts is not None:
        return place.facts, False
    folder = str(_cache(place, config))
    assumed = HostFacts(
        nimctl=__version__,
        taken_at="",
        system=SystemFacts(),
        gpus=place.inventory,
        docker=_DOCKER,
        toolkit=_TOOLKIT,
        cdi=(),
        image_store=None,
        cache=CacheFacts(folder, None),
        port=PortFacts(str(config.text("host")), config.number("port")),
        credentials=CredentialFacts(),
    )
    return assumed, True


def _sizes(chosen: Candidate) -> dict[str, str | int | float | bool]:
    sizes = chosen.parallel
    told: dict[str, str | int | float | bool] = {"tensor-parallel-size": sizes.tensor}
    told |= {"pipeline-parallel-size": sizes.pipeline} if sizes.pipeline > 1 else {}
    told |= {"data-parallel-size": sizes.data} if sizes.data > 1 else {}
    told |= {"decode-context-parallel-size": sizes.decode_context} if sizes.decode_context > 1 else {}
    return told | ({"enable-expert-parallel": True} if sizes.expert else {})


def _across_nodes(chosen: Candidate, place: Place) -> dict[str, str | int | float | bool]:
    machines = -(-chosen.parallel.world // max(1, len(place.cluster.slots)))
    return {"nnodes": machines} if machines > 1 else {}


def _several_nodes(chosen: Candidate, place: Place) -> str:
    machines = -(-chosen.parallel.world // len(place.cluster.slots))
    return (
        "several-machines: nimctl starts containers on one machine, so no command is shown. Start our image on each of "
        f"{machines} machines with --network host, -e NIM_NUM_COMPUTE_NODES={machines}, -e NIM_NODE_RANK=0 to "
        f"{machines - 1}, -e NIM_LEADER_ADDRESS=ADDRESS_OF_MACHINE_0, "
        f"-e NIM_TENSOR_PARALLEL_SIZE={chosen.parallel.tensor} "
        f"and -e NIM_PIPELINE_PARALLEL_SIZE={chosen.parallel.pipeline}: docs/serving/multi-node.md."
    )

"""The acting part of `nimctl doctor --probe`: containers as a run would start them, which must see the GPUs."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from nimctl.cli import acquire, launching
from nimctl.cli.target import image_for
from nimctl.core.errors import NimctlError
from nimctl.core.gpus import select
from nimctl.core.injection import WORDS, Mode
from nimctl.doctor import probe
from nimctl.doctor.probe_words import Said, commands
from nimctl.launch.devices import possible_requests
from nimctl.launch.plan import CACHE_TARGET, make_plan

if TYPE_CHECKING:
    from nimctl.cli.diagnosis import Diagnosis
    from nimctl.doctor.model import Finding
    from nimctl.launch.docker import Engine
    from nimctl.launch.model import GpuRequest, LaunchPlan
    from nimctl.render import Output

# The image of NVIDIA's page; the toolkit mounts nvidia-smi into it.
PAGE_IMAGE = "docker.io/library/ubuntu:24.04"
# Seconds for each way in, and after which no further one is tried once one works.
EACH, ENOUGH = 20.0, 30.0


def run_probe(found: Diagnosis, image: str | None, out: Output) -> tuple[Finding, ...]:
    """Start the image that a run would use (or `image`) in each way in which GPUs get into containers here."""
    from nimctl.launch.docker import Engine

    if reason := probe.not_tried(found.facts, found.needs):
        return (reason,)
    try:
        plan, requests = _plan(found)
        engine = Engine.connect()
    except NimctlError as error:
        return (probe.not_started(error),)
    with closing(engine):
        try:
            chosen, note = _image(found, plan, image, engine, out)
        except NimctlError as error:
            return (probe.no_image(error),)
        if note:
            out.text(note)
        said = _try(found, replace(plan, image=chosen), requests, engine, out)
    return tuple(probe.judge(found.facts, found.needs, said, chosen, note))


def _plan(found: Diagnosis) -> tuple[LaunchPlan, tuple[tuple[Mode, GpuRequest], ...]]:
    """The plan of a run, and the ways to its GPUs, the run's own first. The layout is not the probe's question."""
    target = replace(found.target, recipe=replace(found.target.recipe, config=None, weights_bytes=None, variants=()))
    gpus = found.needs.gpus or "all"
    choice = image_for(target, "cuda", found.config)
    plan = make_plan(launching.run_options(launching.Asked(None), target, found.config, gpus, choice), found.facts)
    ways = possible_requests(select(found.facts.gpus, gpus), found.facts)
    return plan, tuple(sorted(ways, key=lambda way: way[1] != plan.gpu))


def _image(found: Diagnosis, plan: LaunchPlan, named: str | None, engine: Engine, out: Output) -> tuple[str, str]:
    """The image to start, and which one it stands for, where it does. Pulls what is named, and the page's."""
    from nimctl.images import local_tag

    wanted = str(named or plan.image)
    for reference in dict.fromkeys((wanted, local_tag("cuda"))):
        if engine.inspect_image(reference) is not None:
            return reference, "" if reference == wanted else f"{wanted} is not here; {reference} stands in for it"
        if named:
            break
    if named:
        acquire.pull_image(named, engine, out, found.config)
        return named, ""
    note = f"{wanted} is not here; {PAGE_IMAGE} of NVIDIA's page stands in for it"
    if engine.inspect_image(PAGE_IMAGE) is None:
        acquire.pull_image(PAGE_IMAGE, engine, out, found.config)
    return PAGE_IMAGE, note


def _try(
    found: Diagnosis,
    plan: LaunchPlan,
    requests: tuple[tuple[Mode, GpuRequest], ...],
    engine: Engine,
    out: Output,
) -> list[Said]:
    said: list[Said] = []
    started = time.monotonic()
    for mode, request in requests:
        with out.working(f"starting a container of {plan.image}, GPUs by {WORDS[mode]}"):
            said.append(_once(found, plan, mode, request, engine))
        last = said[-1].error
        if (last is not None and last.id == "docker-hangs") or time.monotonic() - started > ENOUGH:
            break
    return said


def _once(found: Diagnosis, plan: LaunchPlan, mode: Mode, request: GpuRequest, engine: Engine) -> Said:
    """One container; with another command where the image holds no shell, and no Python."""
    from nimctl.launch.docker.once import probe_body, run_once

    has_cache = not found.facts.cache.hangs and found.config.cache.is_dir()
    problem = None
    for argv in commands(CACHE_TARGET):
        body = probe_body(plan, request, argv, cache=has_cache)
        try:
            code, output = run_once(engine, body, EACH)
        except NimctlError as error:
            problem = error
            if error.id != "image-incompatible":
                break
            continue
        return Said(mode, code, output)
    return Said(mode, error=problem)

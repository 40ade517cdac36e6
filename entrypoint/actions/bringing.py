"""Which checkpoints an action is about, and how one comes into the cache. No GPU, no engine and no front is needed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from entrypoint import settings
from entrypoint.actions.doing import Desk, Watcher, stoppable
from entrypoint.engine import invocation
from entrypoint.engine.drafts import Draft
from entrypoint.engine.model import Model, engine_device, named_model
from entrypoint.stages.hardware import installed_vllm
from entrypoint.weights import cachefolder
from entrypoint.weights.checkpoint import Checkpoint
from entrypoint.weights.supplies import about
from nimctl.core.fetch import Manifest, OnProgress, Stop
from nimctl.core.planning.profiles import asked_for


@dataclass(frozen=True)
class Brought:
    """A checkpoint at `path`: in the cache, or a folder of its own that is served as it stands.

    `address` is where it came from, `source` the same as it may be shown; `summary` says in words what was done.
    """

    address: str
    source: str
    path: Path
    manifest: Manifest
    seconds: float
    summary: str = ""


def wanted(chosen: settings.Settings, profiles: Sequence[str], *, everything: bool = False) -> tuple[Model, ...]:
    """The model with each checkpoint to bring; weights that were named are the only ones. Raises `profile-unknown`."""
    model = named_model(chosen)
    asked = tuple(profiles) or ((chosen.model_profile,) if chosen.model_profile else ())
    if chosen.model_path or not (asked or everything):
        return (model,)
    formats = model.recipe.formats if everything else [asked_for(model.recipe, one).format for one in asked]
    recipes = [model.recipe.on(name) for name in dict.fromkeys(formats)]
    return tuple(replace(model, recipe=recipe, weights=recipe.weights) for recipe in recipes)


def drafts_of(chosen: settings.Settings, models: Sequence[Model]) -> tuple[Draft, ...]:
    """The draft models that the engine would be told to use beside `models`, each once. Raises `usage`."""
    device = engine_device(chosen, installed_vllm())
    found = ((invocation.draft_of(chosen, model, device), model.weights) for model in models)
    return tuple(dict.fromkeys(draft for draft, weights in found if draft and not draft.is_part_of(weights)))


def bring(desk: Desk, what: Model | Draft, *, refresh: bool) -> Brought:
    """Bring one checkpoint into the cache; with `refresh`, a branch is looked up anew. Raises as `fetch` does."""
    watcher = desk.watcher()
    work = partial(_bring, what=what, desk=desk, on_progress=watcher.on_progress, refresh=refresh)
    return _told(stoppable(work), watcher)


def _told(result: Brought, watcher: Watcher) -> Brought:
    return replace(result, summary=watcher.summary)


def _bring(stop: Stop, *, what: Model | Draft, desk: Desk, on_progress: OnProgress, refresh: bool) -> Brought:
    began = time.monotonic()
    chosen, access = desk.chosen, desk.access
    draft = what if isinstance(what, Draft) else None
    address = what.address if isinstance(what, Draft) else what.weights
    with about(draft):
        if why_not := cachefolder.probe([address], chosen.cache_path, chosen.cache_probe_timeout, access):
            desk.journal.warning("cache", f"the cache is read-only ({why_not}): only what is in it can be had")
        checkpoint = Checkpoint(address, chosen.cache_path, access, stop=stop, refresh=refresh)
        try:
            path = checkpoint.bring(on_progress)
            return Brought(address, what.source, path, checkpoint.recorded, time.monotonic() - began)
        finally:
            checkpoint.close()

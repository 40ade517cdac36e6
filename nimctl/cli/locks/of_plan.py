"""The lock of a plan, from what was found of its image and its weights. Nothing is looked at here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nimctl import __version__
from nimctl.cli import launching
from nimctl.cli.target import Target
from nimctl.core.fetch import Manifest
from nimctl.core.gpus import Gpu
from nimctl.core.layout import Layout
from nimctl.lock import making
from nimctl.lock.model import Lock, LockedContainer, LockedEngine, LockedGpus, LockedImage, LockedOption

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared


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

"""What is pulled, and the events of a pull added up. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nimctl.core.image_identity import ImageIdentity
from nimctl.core.pull_progress import Layer, LayerState, PullProgress

# What docker says of a layer, and what that means. `Verifying Checksum` and `Download complete` may both come, or one.
_SAID: Mapping[str, LayerState] = {
    "Pulling fs layer": "waiting",
    "Waiting": "waiting",
    "Downloading": "fetching",
    "Verifying Checksum": "fetched",
    "Download complete": "fetched",
    "Extracting": "unpacking",
    "Pull complete": "done",
    "Already exists": "here",
}
_SHORT = 12  # hexadecimal digits by which docker names a layer in its events
_RETRYING = re.compile(r"Retrying in \d+ seconds?")


@dataclass(frozen=True)
class PullPlan:
    """One image to be pulled. `layers` are digest and bytes to transfer, the lowest first.

    `diff_ids` are the hashes of the unpacked layers in the same order, from the configuration.
    """

    identity: ImageIdentity
    layers: tuple[tuple[str, int], ...] = ()
    diff_ids: tuple[str, ...] = ()


def begin(plan: PullPlan, attempt: int = 1) -> PullProgress:
    """The progress of a pull of which nothing has been heard."""
    sizes = {digest.removeprefix("sha256:")[:_SHORT]: Layer(size) for digest, size in plan.layers}
    return PullProgress(sizes, attempt=attempt)


def advance(progress: PullProgress, event: Mapping[str, Any]) -> PullProgress:
    """The progress after one event of `POST /images/create`."""
    status, name = str(event.get("status") or ""), str(event.get("id") or "")
    detail = f"{status} {name}".strip()
    if _RETRYING.fullmatch(status):
        return replace(progress, detail=f"layer {name}: {status[0].lower()}{status[1:]}")
    state = _SAID.get(status)
    numbers = event.get("progressDetail")
    sizes = numbers if isinstance(numbers, Mapping) else {}
    total = _number(sizes.get("total"))
    known = progress.layers.get(name) or (Layer(total) if state and total else None)
    if state is None or known is None:
        return replace(progress, detail=detail)
    layer = replace(known, state=state)
    if state in ("fetching", "unpacking"):
        layer = replace(layer, done=min(_number(sizes.get("current")), layer.size))
    return replace(progress, layers={**progress.layers, name: layer}, detail=detail)


def finished(progress: PullProgress, plan: PullPlan) -> int:
    """How many of the lowest layers are unpacked without a gap."""
    for count, (digest, _) in enumerate(plan.layers):
        layer = progress.layers.get(digest.removeprefix("sha256:")[:_SHORT])
        if layer is None or layer.state not in ("done", "here"):
            return count
    return len(plan.layers)


def _number(value: Any) -> int:
    return max(0, int(value)) if isinstance(value, int | float) else 0

"""The events of a pull, added up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_FINISHED = ("Pull complete", "Already exists", "Download complete", "Verifying Checksum", "Extracting")


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is: bytes downloaded of those announced so far (None before the first), and words.

    Layers announce their size only when their download begins, so `total` grows; it is never less than `done`.
    """

    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    detail: str = ""
    digest: str | None = None

    @property
    def done(self) -> int | None:
        """Bytes downloaded."""
        return sum(done for done, _ in self.layers.values()) if self.layers else None

    @property
    def total(self) -> int | None:
        """Bytes announced."""
        return sum(total for _, total in self.layers.values()) if self.layers else None


def advance(progress: PullProgress, event: Mapping[str, Any]) -> PullProgress:
    """The progress after one event of `POST /images/create`."""
    status, layer = str(event.get("status") or ""), str(event.get("id") or "")
    if status.startswith("Digest: "):
        return replace(progress, digest=status.removeprefix("Digest: ").strip(), detail=status)
    sizes = event.get("progressDetail") or {}
    layers, complete = dict(progress.layers), progress.complete
    if status == "Downloading" and sizes.get("total"):
        layers[layer] = (min(int(sizes.get("current") or 0), int(sizes["total"])), int(sizes["total"]))
    elif status in _FINISHED and layer in layers:
        layers[layer] = (layers[layer][1], layers[layer][1])
    if status in ("Pull complete", "Already exists"):
        complete = complete | {layer}
    return replace(progress, layers=layers, complete=complete, detail=f"{status} {layer}".strip())

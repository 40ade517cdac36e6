"""How far a pull of an image is, as data: added up from what docker says, drawn for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LayerState = Literal["waiting", "fetching", "fetched", "unpacking", "done", "here"]
Phase = Literal["waiting", "fetching", "unpacking", "done"]


@dataclass(frozen=True)
class Layer:
    """A layer of `size` bytes, `done` of which are fetched, or unpacked where it is unpacking."""

    size: int
    done: int = 0
    state: LayerState = "waiting"

    @property
    def fetched(self) -> int:
        """Bytes that are here: all, once its download ended."""
        return self.done if self.state in ("waiting", "fetching") else self.size


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is; `layers` by docker's short names, in the order of the image.

    With the layers of a manifest the total is known from the beginning; without, each says its size when it begins.
    `attempt` counts from 1.
    """

    layers: Mapping[str, Layer] = field(default_factory=dict)
    detail: str = ""
    attempt: int = 1

    @property
    def done(self) -> int:
        """Bytes that are here, of layers that were here before too."""
        return sum(layer.fetched for layer in self.layers.values())

    @property
    def fetched(self) -> int:
        """Bytes that came by this pull."""
        return sum(layer.fetched for layer in self.layers.values() if layer.state != "here")

    @property
    def total(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def unpacked(self) -> int:
        """How many layers are unpacked."""
        return sum(layer.state in ("done", "here") for layer in self.layers.values())

    @property
    def phase(self) -> Phase:
        """What is mainly being done."""
        states = {layer.state for layer in self.layers.values()}
        if states <= {"done", "here"} and states:
            return "done"
        if states & {"waiting", "fetching"}:
            return "fetching" if self.done else "waiting"
        return "unpacking" if states else "waiting"

    @property
    def active(self) -> tuple[tuple[str, Layer], ...]:
        """The layers that something happens to now."""
        busy = ("fetching", "unpacking")
        return tuple((name, layer) for name, layer in self.layers.items() if layer.state in busy)

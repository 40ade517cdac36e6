"""The parallel sizes that a user asked for, read alike by the host and by the container. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from nimctl.core.engine_options import Option
from nimctl.core.errors import NimctlError


@dataclass(frozen=True)
class Sizes:
    """Ranks of tensor, pipeline and data parallelism on this machine; None where nobody asked."""

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None

    def __str__(self) -> str:
        """Such as `TP=4` or `TP=2 x PP=2`: the tensor-parallel size always, the others where they split anything."""
        rest = (("PP", self.pipeline), ("DP", self.data))
        return " x ".join(
            [f"TP={self.tensor or 1}", *(f"{name}={size}" for name, size in rest if size not in (None, 1))]
        )


NOTHING_ASKED = Sizes()


def asked_sizes(options: Iterable[Option], variables: Sizes = NOTHING_ASKED) -> Sizes:
    """What `options` ask for, the last of a kind first, then `variables`. Raises `usage` for what is no size.

    Of data-parallel ranks only those on this machine count, if their number is given as well.
    """
    given = {option.name: option for option in options}

    def size(name: str) -> int | None:
        option = given.get(name)
        return None if option is None else size_of(" ".join(option.values), " ".join(option.words))

    return Sizes(
        size("tensor-parallel-size") or variables.tensor,
        size("pipeline-parallel-size") or variables.pipeline,
        size("data-parallel-size-local") or size("data-parallel-size") or variables.data,
    )


def size_of(text: str, where: str) -> int:
    """The size written as `text` in `where`. Raises `usage`."""
    if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) > 0:
        return int(text)
    raise NimctlError(
        "usage",
        f"{where} is not a parallel size",
        cause="one whole number from 1 is expected",
        fix="Correct it, or leave it out: the sizes follow from the GPUs.",
    )

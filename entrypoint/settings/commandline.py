"""The words behind the image's name: an action, `--dry-run`, a model, and arguments for the engine."""

from collections.abc import Sequence
from typing import NamedTuple

from entrypoint.actions import table
from nimctl.core.errors import NimctlError


class Line(NamedTuple):
    """Whether `--dry-run` is there, the model if one is named, and the engine's arguments."""

    dry_run: bool
    model: str | None
    engine_args: tuple[str, ...]


def split(arguments: Sequence[str]) -> Line:
    """The words of `nim-serve`, which may be left out itself. Raises `usage`."""
    rest = [a for a in arguments if a != "--dry-run"]
    dry_run = len(rest) != len(arguments)
    if rest[:1] == [table.SERVE_RAY]:
        rest = _without_ray(rest[1:])
    elif rest[:1] == [table.SERVE]:
        rest = rest[1:]
    if not rest or rest[0].startswith("-"):
        return Line(dry_run, None, tuple(rest))
    if "://" not in rest[0] and not rest[0].startswith("/"):
        raise NimctlError(
            "usage",
            f"{rest[0]!r} is neither an action nor a model",
            cause=f"the known actions, each as the first word, are {', '.join(table.NAMES)}; "
            "a model is an absolute path or a source URI",
            fix="Leave it out, or name the model with NIM_RECIPE or NIM_MODEL_PATH; `-h` tells more.",
        )
    return Line(dry_run, rest[0], tuple(rest[1:]))


def _without_ray(words: Sequence[str]) -> list[str]:
    """The words of `nim-serve-ray` without those about Ray's own port and head, which ours has no use for.

    https://docs.nvidia.com/nim/large-language-models/latest/deployment/multi-node-deployment.html
    """
    rest = [word for word in words if word != "--head" and not word.startswith(("--port=", "--head-address="))]
    for name in ("--port", "--head-address"):
        if name in rest:
            at = rest.index(name)
            del rest[at : at + 2]
    return rest

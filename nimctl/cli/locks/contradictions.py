"""What a command line may say beside a lock, which says all that decides what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.lock import making
from nimctl.lock.model import Lock


@dataclass(frozen=True)
class Given:
    """What the command line beside a lock said that the lock says too; None where nothing was said."""

    model: str | None = None
    image: str | None = None
    env: Sequence[str] = ()
    profile: str | None = None
    engine_args: Sequence[str] = ()
    name: str | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Those of `env`, each with its value, "" where only its name was said."""
        return dict(item.partition("=")[::2] for item in self.env)


def refuse_contradictions(lock: Lock, given: Given) -> Path | None:
    """The folder of the weights, where the lock is of one. Raises `usage` for what the lock says otherwise."""
    wanted: list[str] = []
    folder = None
    if lock.weights is not None and lock.weights.source == making.FOLDER:
        folder = Path(given.model or lock.model).expanduser().absolute()
    elif given.model is not None and given.model != lock.model:
        wanted.append(f"MODEL {given.model} (the lock has {lock.model})")
    if given.image is not None and given.image != lock.image.reference:
        wanted.append(f"--image {given.image} (the lock has {lock.image.reference})")
    if given.profile is not None and (
        lock.layout is None or given.profile not in (lock.layout.profile, lock.layout.id)
    ):
        wanted.append(f"--profile {given.profile}" + (f" (the lock has {lock.layout.profile})" if lock.layout else ""))
    if given.engine_args and tuple(given.engine_args) != lock.engine.arguments:
        wanted.append(f"engine arguments (the lock has {' '.join(lock.engine.arguments) or 'none'})")
    for item in given.env:
        name, equals, value = item.partition("=")
        known = lock.variables.get(name, "")
        if name not in lock.variables or (known is not None and equals and value != known):
            wanted.append(f"--env {name}")
    if wanted:
        raise NimctlError(
            "usage",
            f"the command line contradicts the lock: {'; '.join(wanted)}",
            cause="what the lock says is started and checked, and nothing else",
            fix="Leave it out, or lock what you want now with `nimctl lock`. Address, port, name and cache are free.",
        )
    return folder


def values_of(
    variables: Mapping[str, str | None], given: Mapping[str, str], environment: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The variables of a lock with the secrets of this caller in their places. Raises `key-missing`."""
    found: list[tuple[str, str]] = []
    for name, value in variables.items():
        if value is not None:
            found.append((name, value))
            continue
        secret = given.get(name) or environment.get(name)
        if not secret:
            raise NimctlError(
                "key-missing",
                f"the lock wants {name}, and it is not set",
                cause="a lock holds the names of secrets, never their values",
                fix=f"export {name}=... before `nimctl run --locked`.",
            )
        found.append((name, secret))
    return found

"""When the cache is enough and when the source is asked: one rule for every source that pins revisions.

A start never moves to another revision by itself: what a name pointed at when it was fetched is what it means here,
until `refresh` asks for the present revision. Where the network may not or cannot be used, what others (`hf download`,
a NIM) left in the cache is taken if nothing of it is missing.
"""

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from nimctl.core.cache import RepoPaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots
from nimctl.core.fetch.manifest import Manifest
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import selection
from nimctl.core.fetch.sources.integrity import require_all_shards, require_readable, require_whole
from nimctl.core.fetch.sources.opening import Opening

_NO_NETWORK = ("weights-source-unreachable", "proxy-refused")
# With whole weights at hand, an unreachable source is not worth the minutes that a download would wait for it.
_ATTEMPTS_BESIDE_WEIGHTS = 3


@dataclass(frozen=True)
class Wanted:
    """What is looked for in `repo`: `name` is a branch, tag or version, or itself a revision if `is_revision`.

    `source` is the address to show and to record; `only` the files that are wanted, none meaning all that are needed.
    """

    repo: RepoPaths
    source: str
    name: str
    is_revision: bool
    only: tuple[str, ...] = ()

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions that the cache takes the name for, best first."""
        known = snapshots.revision_at(self.repo, self.name)
        return tuple(filter(None, (known, self.name if self.is_revision else None)))


def resolve(wanted: Wanted, ask: Callable[[Patience], Manifest], opening: Opening) -> Manifest:
    """The manifest of `wanted`: from the cache where that is right, else by `ask`, which asks the source.

    Raises `weights-offline`, what `ask` raises, and `weights-unreadable` or `weights-pickle` of what lies in the cache.
    """
    patience = opening.patience
    if opening.access.offline:
        return at_hand(wanted)
    if opening.refresh:
        return ask(patience)
    if manifest := _verified(wanted):
        return manifest
    beside: Manifest | None = None
    with contextlib.suppress(NimctlError):
        beside = _left(wanted)
    if beside is None:
        return ask(patience)
    try:
        return ask(replace(patience, attempts=min(patience.attempts, _ATTEMPTS_BESIDE_WEIGHTS)))
    except NimctlError as error:
        if error.id in _NO_NETWORK:
            return beside
        raise


def at_hand(wanted: Wanted) -> Manifest:
    """The manifest of what the cache alone has of `wanted`, verified or left by others.

    Raises `weights-offline`, `weights-unreadable` and `weights-pickle`.
    """
    return _verified(wanted) or _left(wanted)


def _verified(wanted: Wanted) -> Manifest | None:
    return next(filter(None, (complete(wanted, revision) for revision in wanted.revisions)), None)


def complete(wanted: Wanted, revision: str) -> Manifest | None:
    """The verified manifest of `revision` that holds all that is wanted, without a look at the network."""
    manifest = snapshots.complete(wanted.repo, revision)
    if manifest is None:
        return None
    if wanted.only:
        return manifest if set(wanted.only) <= {file.path for file in manifest.files} else None
    return manifest if "?file=" not in manifest.source else None


def _left(wanted: Wanted) -> Manifest:
    """What lies in the cache without our marker, if nothing is missing of it. Raises `weights-offline` and others."""
    why = f"the cache holds no revision {wanted.name!r} in {wanted.repo.folder}"
    for revision in wanted.revisions:
        folder = wanted.repo.snapshot(revision)
        found = snapshots.found(wanted.repo, revision, wanted.source)
        if found is None:
            why = f"{folder} has no config.json, or holds links to files that are not there"
            continue
        try:
            files = selection.choose(found.files, str(folder), only=wanted.only)
            names = [file.path for file in files]
            require_readable(folder, names)
            if not wanted.only:
                require_all_shards(folder, names)
            for name in names:
                if name.endswith(selection.TENSORS):
                    require_whole(folder / name)
        except NimctlError as error:
            if error.id not in ("weights-incomplete", "weights-missing", "weights-not-found"):
                raise
            why = f"{error.message} ({error.cause})"
            continue
        return replace(found, files=files)
    raise NimctlError(
        "weights-offline",
        f"the weights of {wanted.source} are not complete in the cache, and the network must not be used",
        cause=why,
        fix=f"Where there is a network: `nimctl pull --weights {shlex.quote(wanted.source)}` with this cache folder, "
        "or with one that is then copied here with its links.",
    )

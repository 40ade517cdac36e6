"""Freeing room in the cache: a plan of what nobody needs, judged purely, and its execution.

What goes: revisions that no name points at, downloads whose writer is dead, blobs that no snapshot links to, and
compile caches that were superseded. What stays, whatever was planned: all that a live run or a live writer uses.
A revision loses its marker first, then its folder of links at once, then its blobs: a crash in between leaves
something that is not taken for whole, and that the next plan finds.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nimctl.core.cache import CachePaths, RepoPaths, storage_error
from nimctl.core.cache.held import is_held
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import install, snapshots, writers
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.upkeep import inventory
from nimctl.core.fetch.upkeep.inventory import EngineCache, Inventory, Repository, Revision
from nimctl.core.plain import to_plain

Kind = Literal["revision", "partial", "blob", "engine"]
DAY = 86400.0  # seconds
_ENGINE_AGE = 30 * DAY  # without a change for so long, and with a newer one beside it, a compile cache is dead
_HF_AGE = DAY  # where locks do not tell, a partial file of huggingface_hub that stood still for so long is dead


@dataclass(frozen=True)
class Item:
    """One thing to remove: `name` in `repository` (for compile caches: the user id), `bytes` freed by it, and why."""

    kind: Kind
    part: str
    repository: str
    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Kept:
    """Something that would go, and why it stays."""

    repository: str
    name: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What to remove, and what stays although nothing names it."""

    items: tuple[Item, ...]
    kept: tuple[Kept, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes on the disk that it frees."""
        return sum(item.bytes for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """The plan as part of a JSON document."""
        plain: dict[str, Any] = to_plain(self)
        return {**plain, "bytes": self.bytes}


def make_plan(
    held: Inventory,
    *,
    users: Mapping[str, Sequence[str]] | None = None,
    everything_used_by: Sequence[str] = (),
    keep: int = 0,
    older_than: float | None = None,
) -> Plan:
    """What can go of `held`. Pure.

    `users` names the live runs by the repository that they serve (`part/name`), `everything_used_by` those of which
    nobody knows what they read. Of the revisions that no name points at the `keep` newest stay; with `older_than`
    (seconds) only what has not changed for so long goes.
    """
    items: list[Item] = []
    kept: list[Kept] = []
    for repository in held.repositories:
        runs = (*(users or {}).get(f"{repository.part}/{repository.name}", ()), *everything_used_by)
        _plan_repository(repository, runs, keep, older_than or 0.0, items=items, kept=kept)
    in_use = bool(users) or bool(everything_used_by)
    items += [] if in_use else _dead_engines(held.engine, max(older_than or 0.0, _ENGINE_AGE))
    return Plan(tuple(items), tuple(kept))


def _plan_repository(
    repository: Repository, runs: Sequence[str], keep: int, older_than: float, *, items: list[Item], kept: list[Kept]
) -> None:
    unwanted = _unnamed(repository, keep, older_than)
    writer = next((p for p in repository.partials if _may_live(p)), None)
    why = f"{writer.name} is being written" if writer else f"used by {', '.join(runs)}" if runs else None
    if why:
        kept += [Kept(repository.name, revision.revision, why) for revision in unwanted]
        unwanted = []
    if writer:  # its blobs are not linked yet, and other partial files are about to be claimed by it
        return
    staying = {blob.name for r in repository.revisions if r not in unwanted for blob in r.blobs}
    for revision in unwanted:
        freed = [blob for blob in revision.blobs if blob.name not in staying]
        staying |= {blob.name for blob in freed}  # each is freed once
        items.append(_item("revision", repository, revision.revision, sum(b.disk for b in freed), _because(revision)))
    items += [
        _item("partial", repository, partial.name, partial.disk, "its download was cut off, and nobody goes on with it")
        for partial in repository.partials
        if _old(partial.age, older_than)
    ]
    items += [
        _item("blob", repository, blob.name, blob.disk, "no revision has it")
        for blob in repository.loose
        if _old(blob.age, older_than)
    ]


def _unnamed(repository: Repository, keep: int, older_than: float) -> list[Revision]:
    """The revisions that may go. Of a repository without any name (a commit or a version was asked for) one stays."""
    youngest_first = sorted(repository.revisions, key=lambda r: (r.state == "incomplete", r.age or 0.0))
    unnamed = [revision for revision in youngest_first if not revision.refs]
    if len(unnamed) == len(repository.revisions):
        keep = max(keep, 1)
    return [revision for revision in unnamed[keep:] if _old(revision.age, older_than)]


def _may_live(partial: inventory.Partial) -> bool:
    if partial.writer == "unsure" and not partial.name.startswith("w-"):
        return not _old(partial.age, _HF_AGE)
    return partial.writer == "alive"


def _because(revision: Revision) -> str:
    return "no name points at it" + (
        "" if revision.state in ("verified", "unverified") else f", and it is {revision.state}"
    )


def _dead_engines(caches: Iterable[EngineCache], age: float) -> list[Item]:
    """Compile caches beside which the same user has a newer one, and which nobody has touched for long."""
    youngest: dict[int, float] = {}
    known = list(caches)
    for cache in known:
        youngest[cache.uid] = min(youngest.get(cache.uid, float("inf")), cache.age or 0.0)
    return [
        Item("engine", "engine", str(cache.uid), cache.key, cache.disk, "a newer one is in use")
        for cache in known
        if cache.age is not None and cache.age > max(age, youngest[cache.uid])
    ]


def _item(kind: Kind, repository: Repository, name: str, disk: int, why: str) -> Item:
    return Item(kind, repository.part, repository.name, name, disk, why)


def _old(age: float | None, limit: float) -> bool:
    return limit == 0.0 or (age is not None and age >= limit)


def apply(
    root: Path, held: Inventory, plan: Plan, stop: Stop, *, on_wait: Callable[[str], None] = lambda _: None
) -> Plan:
    """Remove what `plan` says of the cache at `root`; what came into use meanwhile stays. What was done.

    Raises `cache-not-writable` and others of the cache.
    """
    done: list[Item] = []
    kept = list(plan.kept)
    try:
        for repository in held.repositories:
            mine = [i for i in plan.items if (i.part, i.repository) == (repository.part, repository.name)]
            if mine and not stop.is_set:
                why = _apply_repository(root, inventory.paths_of(root, repository), mine, stop, on_wait, done=done)
                kept += [Kept(repository.name, item.name, why) for item in mine if why and item not in done]
        for item in plan.items:
            if item.kind == "engine" and not stop.is_set:
                folder = CachePaths(root).engine / item.repository / item.name
                if is_held(folder):
                    kept.append(Kept(f"compile cache of uid {item.repository}", item.name, "a server uses it"))
                    continue
                _remove_folder(folder, None)
                done.append(item)
    except OSError as error:
        raise storage_error(error, root) from error
    if stop.is_set:
        raise NimctlError(
            "interrupted", "the pruning was stopped", cause="somebody asked for it", fix="Run it again: it goes on."
        )
    return Plan(tuple(done), tuple(kept))


def _apply_repository(
    root: Path,
    repo: RepoPaths,
    items: Sequence[Item],
    stop: Stop,
    on_wait: Callable[[str], None],
    *,
    done: list[Item],
) -> str | None:
    """Remove `items` of one repository and note them in `done`; the reason why the rest stays."""
    if any(path.is_symlink() for path in (repo.folder, repo.blobs, repo.snapshots, repo.partial, repo.markers)):
        return "its folder is a link that leads out of the cache"
    with writers.turn_if_free(repo, root) as free:
        if not free:
            return "a download into it has begun"
        with writers.writer(repo, root, stop, on_wait) as me:  # claims what dead writers left, by renaming it
            others = [folder for folder in writers.conditions(repo.partial) if folder != me.folder]
            if others or stop.is_set:
                return "a download into it has begun"
            kinds: dict[str, list[Item]] = {}
            for item in items:
                kinds.setdefault(item.kind, []).append(item)
            _remove_partials(repo, me.folder, kinds.get("partial", []))
            done += kinds.get("partial", [])
            gone, blobs = _remove_revisions(repo, me.folder, kinds.get("revision", []))
            blobs |= {item.name for item in kinds.get("blob", [])}
            _remove_blobs(repo, me.folder, blobs)
            done += [*gone, *kinds.get("blob", [])]
            return "a name points at it now"


def _remove_partials(repo: RepoPaths, own: Path, items: Sequence[Item]) -> None:
    if any(item.name.startswith("w-") for item in items):
        for path in [*own.glob("*.data"), *own.glob("*.journal"), *own.glob("*.fresh")]:
            path.unlink(missing_ok=True)
    for item in items:
        if item.name.startswith("blobs/"):
            (repo.blobs / Path(item.name).name).unlink(missing_ok=True)


def _remove_revisions(repo: RepoPaths, own: Path, items: Sequence[Item]) -> tuple[list[Item], set[str]]:
    """Take marker and links of revisions away; which, and the blobs that they linked to."""
    named = {snapshots.revision_at(repo, ref) for ref in inventory.refs_of(repo)}
    gone = [item for item in items if item.name not in named]
    blobs: set[str] = set()
    for item in gone:
        blobs |= inventory.linked_blobs(repo, item.name)
        for marker in (repo.marker(item.name), snapshots.doubt(repo, item.name)):
            marker.unlink(missing_ok=True)
    if gone and repo.markers.is_dir():
        install.sync_folder(repo.markers)
    for item in gone:
        _remove_folder(repo.snapshot(item.name), own)
    return gone, blobs


def _remove_blobs(repo: RepoPaths, own: Path, names: set[str]) -> None:
    """Remove those of the blobs that no snapshot links to any more."""
    for revision in snapshots.revisions(repo):
        names = names - inventory.linked_blobs(repo, revision)
    if names:
        install.disown(repo, names, own)  # first: no blob of this name that comes later is taken for verified
    for name in names:
        (repo.blobs / name).unlink(missing_ok=True)


def _remove_folder(folder: Path, own: Path | None) -> None:
    """Remove a folder, from its readers' sight at once."""
    gone = (own or folder.parent) / f".gone-{secrets.token_hex(8)}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, gone)  # noqa: PTH104 (a link is renamed itself)
        if gone.is_symlink():
            gone.unlink()
        else:
            shutil.rmtree(gone)

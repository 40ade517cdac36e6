"""`nimctl cache ls` and `prune`: what the cache holds, who uses it, and what of it can go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import typer

from nimctl.cli.places import places_of
from nimctl.cli.runs import runtimes
from nimctl.cli.stopping import stoppable
from nimctl.core.cache import storage_error
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.upkeep import inventory
from nimctl.core.fetch.upkeep import prune as pruning
from nimctl.core.fetch.upkeep.inventory import Inventory, Repository
from nimctl.core.recipes import load, names
from nimctl.launch.runtime import RunHandle
from nimctl.render import Output, ago, size

_STATES = {"verified": "verified", "unverified": "not verified yet", "damaged": "damaged"}
# Daemons that cannot run containers now, or that nobody could have asked to.
_NO_DAEMON = ("docker-missing", "docker-unreachable")


@dataclass(frozen=True)
class Users:
    """The live runs on this cache: by the repository (`part/name`) that they serve; `unknown` may read anything."""

    serving: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What `prune` was asked for; `older_than` in days."""

    keep: int = 0
    older_than: float | None = None
    dry_run: bool = False
    yes: bool = False


def show(root: Path, out: Output) -> None:
    """Print what the cache holds."""
    held = take(root)
    users = users_of(root)
    out.document({"ok": True, "verb": "ls", "cache": str(root), "inventory": _document(held, users)})
    if out.mode == "quiet":
        for repository in held.repositories:
            out.result(repository.name)
        return
    if not held.repositories and not held.engine:
        out.text(f"{root} holds nothing yet")
        return
    out.text(_line("REVISION", "SIZE", "STATE", "AGE", "USED BY"), style="bold")
    for repository in held.repositories:
        out.text(repository.name if repository.part == "huggingface" else f"{repository.part}: {repository.name}")
        for line in _lines(repository, users):
            out.text(line)
    if held.engine:
        room = sum(cache.disk for cache in held.engine)
        users_count = len({cache.uid for cache in held.engine})
        out.text(f"compile caches: {len(held.engine)} of {counted(users_count, 'user')}, {size(room)}")
    for folder in held.unreadable:
        out.text(f"{folder} cannot be read by this user", style="yellow")
    out.text(f"{root}: {size(held.disk)} on the disk, what revisions share counted once")


def take(root: Path) -> Inventory:
    """The inventory. Raises `cache-not-writable`, `cache-unreachable` for a folder that cannot be read."""
    try:
        return inventory.take(root)
    except OSError as error:
        raise storage_error(error, root) from error


def _document(held: Inventory, users: Users) -> dict[str, object]:
    plain = held.to_json()
    for repository in plain["repositories"]:
        mine = users.serving.get(f"{repository['part']}/{repository['name']}", ())
        repository["used_by"] = [*mine, *users.unknown]
    return plain


def _line(revision: str, room: str, state: str, age: str, used_by: str) -> str:
    """One line of at most 80 columns, if no more than two short names of runs are on it."""
    return f"  {revision:<20} {room:>9}  {state:<22} {age:>6}  {used_by}".rstrip()


def _lines(repository: Repository, users: Users) -> Iterator[str]:
    """A line for each revision, for each download that was begun, and for what belongs to none."""
    runs = (*users.serving.get(f"{repository.part}/{repository.name}", ()), *users.unknown)
    for revision in repository.revisions:
        named = f" {','.join(revision.refs)}" if revision.refs else ""
        state = _STATES.get(revision.state) or f"{revision.present} of {counted(revision.files, 'file')}"
        # a run that began before the name moved may still read an older revision
        used = ",".join(runs) + ("" if revision.refs or not runs else "?")
        yield _line(short(revision.revision) + named, size(revision.bytes), state, ago(revision.age), used)
    for partial in repository.partials:
        doing = {"alive": "downloading", "dead": "cut off", "unsure": "downloading?"}[partial.writer]
        share = f" at {100 * partial.bytes // partial.total} %" if partial.total else ""
        yield _line("-", size(partial.bytes), doing + share, ago(partial.age), "")
    if repository.loose:
        room = sum(blob.disk for blob in repository.loose)
        yield _line("-", size(room), f"{counted(len(repository.loose), 'blob')} of none", "", "")


def short(revision: str) -> str:
    """A commit as people write it; versions as they are."""
    return revision[:8] if len(revision) == 40 else revision


def counted(number: int, what: str) -> str:
    """A number of things for people: `1 file`, `2 files`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def users_of(root: Path) -> Users:
    """The runs of this host that are alive and use the cache at `root`."""
    serving: dict[str, tuple[str, ...]] = {}
    unknown: list[str] = []
    for runtime in runtimes():
        for run in runtime.list_runs():
            if not runtime.state(run).alive or (run.cache is not None and Path(run.cache) != root):
                continue
            repositories = _served(run, root)
            if repositories is None:
                unknown.append(run.name)
            for repository in repositories or ():
                serving[repository] = (*serving.get(repository, ()), run.name)
    return Users(serving, tuple(unknown))


def _served(run: RunHandle, root: Path) -> tuple[str, ...] | None:
    """The repositories that a run may read, as `part/name`; empty for a folder of its own, None where nobody knows.

    More than one with NIM_REPOSITORY_OVERRIDE: when the run was started, the mirror may not have been named yet.
    """
    weights = run.weights or (load(run.recipe).weights if run.recipe in names() else None)
    if not weights or run.kind == "nim":
        return None
    with suppress(NimctlError):
        return tuple(f"{part}/{name}" for part, name in places_of(weights, root))
    return None


def prune(root: Path, wanted: Wanted, out: Output) -> None:
    """Show what can go, ask, and remove it."""
    _require_docker_answers()
    held, users = take(root), users_of(root)
    plan = pruning.make_plan(
        held,
        users=users.serving,
        everything_used_by=users.unknown,
        keep=wanted.keep,
        older_than=None if wanted.older_than is None else wanted.older_than * pruning.DAY,
    )
    _show_plan(plan, out)
    shown = {"verb": "prune", "cache": str(root), "plan": plan.to_json()}
    if wanted.dry_run or not plan.items:
        out.document({"ok": True, **shown, "removed": None if wanted.dry_run else pruning.Plan(()).to_json()})
        out.text("nothing was removed: --dry-run" if plan.items else "there is nothing to remove")
        return
    if not wanted.yes and not _agreed(plan, out):
        out.document({"ok": True, **shown, "removed": pruning.Plan(()).to_json()})
        out.text("nothing was removed")
        return
    with stoppable() as (stop, going), out.working("removing"):
        going()
        done = pruning.apply(root, held, plan, stop, on_wait=_once(out))
    out.document({"ok": True, **shown, "removed": done.to_json()})
    for kept in done.kept[len(plan.kept) :]:
        out.text(f"kept: {kept.repository} {short(kept.name)}, {kept.why}", style="yellow")
    out.text(f"freed {size(done.bytes)}")


def _once(out: Output) -> Callable[[str], None]:
    """Says a line, unless it was said just before."""
    said: list[str] = []

    def say(line: str) -> None:
        if said[-1:] != [line]:
            said.append(line)
            out.text(line)

    return say


def _require_docker_answers() -> None:
    """Without the list of containers nobody can say what is in use. A daemon that is not there runs none."""
    from nimctl.launch.docker import Engine

    try:
        Engine.connect()
    except NimctlError as error:
        if error.id not in _NO_DAEMON:
            raise


def _agreed(plan: pruning.Plan, out: Output) -> bool:
    if out.mode != "human" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NimctlError(
            "usage",
            "nothing was removed: there is no terminal to ask on",
            cause=f"{counted(len(plan.items), 'thing')} of {size(plan.bytes)} would go, and --yes was not given",
            fix="Look at it with `nimctl cache prune --dry-run`, then add --yes.",
        )
    return bool(typer.confirm(f"Remove these and free {size(plan.bytes)}?", default=False))


def _show_plan(plan: pruning.Plan, out: Output) -> None:
    if plan.items:
        rows = [[_what(item), short(item.name), size(item.bytes), item.why] for item in plan.items]
        out.table(("WHAT", "NAME", "FREES", "WHY"), rows)
    for kept in plan.kept:
        out.text(f"kept: {kept.repository} {short(kept.name)}, {kept.why}", style="dim")


def _what(item: pruning.Item) -> str:
    if item.kind == "engine":
        return f"compile cache of uid {item.repository}"
    kinds = {"revision": "revision of", "partial": "download of", "blob": "blob of"}
    return f"{kinds[item.kind]} {item.repository}"

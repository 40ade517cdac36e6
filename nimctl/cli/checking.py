"""`nimctl cache verify`: every file of the cache against its digest, and with `--repair` the bad ones fetched again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from nimctl.cli.config import Config
from nimctl.cli.holdings import counted, short, take
from nimctl.cli.places import places_of
from nimctl.cli.stopping import stoppable
from nimctl.core import recipes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop, from_environment, open_source
from nimctl.core.fetch.protocol import Source
from nimctl.core.fetch.upkeep import repair as repairing
from nimctl.core.fetch.upkeep.inventory import Inventory, Repository, Revision
from nimctl.core.fetch.upkeep.repair import Checked, Job
from nimctl.render import Output, size

_SHOWN = 20  # bad files that are listed one by one for people; the document has all


def verify(config: Config, model: str | None, out: Output, *, repair: bool) -> None:
    """Check what was named, all of the cache by default. Raises `weights-corrupt` or `weights-incomplete`."""
    root = config.cache
    jobs = _jobs(root, take(root), model)
    if not jobs:
        out.document({"ok": True, "verb": "verify", "cache": str(root), "checked": []})
        out.text(f"{root} holds no revision to check")
        return
    with stoppable() as (stop, going):
        what = f"verifying {size(sum(job.manifest.total for job in jobs))} in {root}"
        with out.transfer(what) as view:
            going()
            results = repairing.check(root, jobs, view.report, stop)
        if repair:
            results = [_mend(config, pair, out, stop) for pair in zip(jobs, results, strict=True)]
    _say(results, out)
    document = {"verb": "verify", "cache": str(root), "checked": [result.to_json() for result in results]}
    bad = [result for result in results if result.outcome == "bad"]
    if not bad:
        out.document({"ok": True, **document})
        return
    out.error(_failure(bad, root, repaired=repair), document)
    raise SystemExit(_failure(bad, root, repaired=repair).exit_code)


def _jobs(root: Path, held: Inventory, model: str | None) -> list[Job]:
    """What there is to check. Raises `weights-missing` for a name that the cache does not hold."""
    pairs = [(repository, revision) for repository in held.repositories for revision in repository.revisions]
    if model is not None:
        pairs = _named(pairs, model, root)
    return [repairing.job_for(root, repository, revision) for repository, revision in pairs]


def _named(pairs: Sequence[tuple[Repository, Revision]], model: str, root: Path) -> list[tuple[Repository, Revision]]:
    uri = recipes.load(model).weights if model in recipes.names() else model
    if "://" in uri:
        places = places_of(uri, root)
    else:
        name, _, revision = uri.partition(":")
        places = {(repository.part, name): revision for repository, _ in pairs}
    found = [
        (repository, revision)
        for repository, revision in pairs
        if (wanted := places.get((repository.part, repository.name))) is not None and _is_asked(revision, wanted)
    ]
    if found:
        return found
    known = sorted({f"{repository.name}:{short(revision.revision)}" for repository, revision in pairs})
    raise NimctlError(
        "weights-missing",
        f"the cache holds no {model}",
        cause=f"in {root} there are: {', '.join(known) or 'no weights at all'}",
        fix=f"Name one of them, or fetch it: `nimctl pull --weights {model}`.",
    )


def _is_asked(revision: Revision, wanted: str) -> bool:
    """Whether `wanted` means this revision: a branch, a version, or the start of a commit; empty means any."""
    return not wanted or wanted in revision.refs or (len(wanted) >= 4 and revision.revision.startswith(wanted))


def _mend(config: Config, pair: tuple[Job, Checked], out: Output, stop: Stop) -> Checked:
    job, result = pair
    if not result.bad:
        return result
    access = from_environment(os.environ)

    def opened(uri: str) -> Source:
        # what was recorded is the mirror's own address already, so that it must not be redirected once more
        known = _with_user(uri, access.override)
        return open_source(known, config.cache, access=replace(access, override=None))

    what = f"repairing {result.repository} {short(result.revision)}"
    with out.transfer(what) as view:
        return repairing.mend(config.cache, job, result, opened, view.report, stop=stop)


def _with_user(uri: str, mirror: str | None) -> str:
    """`uri` with the user and password of `mirror`, where both are one server: they are never recorded."""
    asked, given = urlsplit(uri), urlsplit((mirror or "").replace("jfrog://", "https://", 1))
    user, at, _ = given.netloc.rpartition("@")
    try:
        same = (asked.scheme, asked.hostname, asked.port) == (given.scheme, given.hostname, given.port)
    except ValueError:  # a port that is no number: such a mirror has given nothing to this cache
        return uri
    return uri.replace("://", f"://{user}@", 1) if at and same else uri


def _say(results: Sequence[Checked], out: Output) -> None:
    """A line for each revision, and one for each file that is not right."""
    for result in results:
        name = f"{result.repository} {short(result.revision)}"
        shown = f"{counted(result.files, 'file')}, {size(result.bytes)}"
        if result.outcome == "right":
            hashed = result.files - len(result.unhashed)
            out.text(f"ok        {name}: {shown}" + ("" if not result.unhashed else f", {hashed} of them by digest"))
            for path in result.unhashed[:_SHOWN]:
                out.text(f"            {path}: no digest is known for it, only its size was compared", style="yellow")
            continue
        word, style = ("repaired  ", "green") if result.outcome == "repaired" else ("DAMAGED   ", "red")
        out.text(f"{word}{name}: {len(result.bad)} of {shown}", style=style)
        for found in result.bad[:_SHOWN]:
            out.text(f"            {found.path}: {_in_words(found)}")
        if len(result.bad) > _SHOWN:
            out.text(f"            and {len(result.bad) - _SHOWN} more; --json names all")
        if result.error is not None:
            out.text(f"            not repaired: [{result.error.id}] {result.error.message}: {result.error.cause}")


def _in_words(found: repairing.Finding) -> str:
    if found.condition == "missing":
        return "it is missing"
    if found.condition == "unreadable":
        return f"{found.blob} cannot be read: {found.found}"
    what = f"its digest is {found.found}"
    if found.condition == "wrong-size":
        what = f"it has {counted(int(found.found or 0), 'byte')}"
    return f"{what}, and should be {found.expected or 'another size'} ({found.blob})"


def _failure(bad: Sequence[Checked], root: Path, *, repaired: bool) -> NimctlError:
    errors = [result.error for result in bad if result.error is not None]
    files = [(result, found) for result in bad for found in result.bad]
    corrupt = [pair for pair in files if pair[1].condition not in ("missing", "unreadable")]
    _, first = (corrupt or files)[0]
    verb = "is" if len(files) == 1 else "are"
    if repaired and errors:
        fix = errors[0].fix
    else:
        fix = (
            "`nimctl cache verify --repair` fetches what is bad again. If it comes back, the disk or the memory of "
            "this machine is damaged."
        )
    return NimctlError(
        "weights-corrupt" if corrupt else "weights-incomplete",
        f"{counted(len(files), 'file')} in {root} {verb} damaged or missing",
        cause=f"the first is {first.path} of {bad[0].repository}: {_in_words(first)}"
        + (f"; it could not be fetched: {errors[0].message}" if errors else ""),
        fix=fix,
        evidence=[f"{result.repository} {short(result.revision)} {f.path}: {f.condition}" for result, f in files[:8]],
    )

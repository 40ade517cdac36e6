"""Checking what lies in the cache against its digests, and mending it.

A revision that is whole and right gets our marker, whoever brought it, so that later starts take it as it is. One with
wrong bytes loses the marker, so that no start takes it; the marker is kept aside, because it says what was there and
where it came from. Mending fetches the bad files alone: a damaged blob is replaced at the moment the right one is
there.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nimctl.core.cache import CachePaths, RepoPaths, make_shared_folder, storage_error
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import digests, install, snapshots, store, verify
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import OnProgress, Source
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.sources import builtin, cached, hub, ngc
from nimctl.core.fetch.sources.integrity import promised_shards
from nimctl.core.fetch.transfer.meter import Meter
from nimctl.core.fetch.upkeep.inventory import Repository, Revision, paths_of
from nimctl.core.fetch.verify import Verdict

Outcome = Literal["right", "repaired", "bad"]


@dataclass(frozen=True)
class Finding:
    """One file that is not right: `expected` its digest, `found` what was met instead, `blob` where the bytes lie."""

    path: str
    blob: str
    condition: str
    expected: str | None
    found: str | None


@dataclass(frozen=True)
class Checked:
    """What was found of one revision. `unhashed` files have no known digest; `marked` says that our marker is there."""

    part: str
    repository: str
    revision: str
    source: str
    files: int
    bytes: int
    bad: tuple[Finding, ...] = ()
    unhashed: tuple[str, ...] = ()
    marked: bool = False
    outcome: Outcome = "right"
    error: NimctlError | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The revision as part of a JSON document."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("bad", "error")}
        bad = [{name: getattr(f, name) for name in f.__dataclass_fields__} for f in self.bad]
        error = self.error.to_json() if self.error else None
        return {**plain, "unhashed": list(self.unhashed), "bad": bad, "error": error}


@dataclass(frozen=True)
class Job:
    """One revision to check, and what should be there."""

    repo: RepoPaths
    repository: Repository
    revision: Revision
    manifest: Manifest
    missing: tuple[str, ...] = ()


def job_for(root: Path, repository: Repository, revision: Revision) -> Job:
    """What has to be checked of a revision: its marker's files, else those that lie there."""
    repo = paths_of(root, repository)
    known = snapshots.marked(repo, revision.revision) or snapshots.doubted(repo, revision.revision)
    if known is not None:
        return Job(repo, repository, revision, known)
    files, missing = _lying(repo.snapshot(revision.revision))
    return Job(repo, repository, revision, Manifest(_address(repository, revision), revision.revision, files), missing)


def _lying(folder: Path) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """The files that others left in a snapshot, with the digests that the blobs' names promise, and what is missing."""
    files: list[File] = []
    missing: list[str] = []
    with contextlib.suppress(OSError):
        for path in snapshots.files_of(folder):
            relative = path.relative_to(folder).as_posix()
            promised = digests.of_blob_name(_real(path).name)
            try:
                files.append(File(relative, path.stat().st_size, str(promised) if promised else None))
            except (OSError, ValueError):
                missing.append(relative)
    there = {file.path for file in files}
    missing += sorted(promised_shards(folder, [path for path in there if "/" not in path]) - there)
    return tuple(files), tuple(missing)


def check(root: Path, jobs: Sequence[Job], on_progress: OnProgress, stop: Stop) -> list[Checked]:
    """Hash every file of `jobs`, each blob once, and note the outcome in the cache as far as it can be written.

    Raises `interrupted` when stopped.
    """
    items: dict[Path, tuple[Path, File]] = {}
    for job in jobs:
        for file in job.manifest.files:
            place = job.repo.snapshot(job.revision.revision) / file.path
            items.setdefault(_real(place), (place, file))
    unique = list(items.values())
    meter = Meter([file for _, file in unique], on_progress)
    verdicts = verify.judge(unique, on_bytes=meter.verifying, stop=stop)
    if stop.is_set:
        raise NimctlError(
            "interrupted", "the check was stopped", cause="somebody asked for it", fix="Run it again from the start."
        )
    meter.finished()
    by_path = {_real(verdict.path): verdict for verdict in verdicts}
    results = [_judged(job, by_path) for job in jobs]
    for job, result in zip(jobs, results, strict=True):
        with contextlib.suppress(OSError):  # a read-only cache can be checked as well
            _note(root, job, result, by_path)
    return [
        replace(r, marked=snapshots.complete(j.repo, r.revision) is not None)
        for j, r in zip(jobs, results, strict=True)
    ]


def _judged(job: Job, by_path: dict[Path, Verdict]) -> Checked:
    folder = job.repo.snapshot(job.revision.revision)
    bad: list[Finding] = [Finding(path, "", "missing", None, None) for path in job.missing]
    unhashed: list[str] = []
    for file in job.manifest.files:
        place = _real(folder / file.path)
        verdict = by_path[place]
        condition, found = _against(file, verdict)
        if condition == "unhashed":
            unhashed.append(file.path)
        elif condition != "right":
            bad.append(Finding(file.path, str(place), condition, file.digest, found))
    return Checked(
        part=job.repository.part,
        repository=job.repository.name,
        revision=job.revision.revision,
        source=job.manifest.source,
        files=len(job.manifest.files) + len(job.missing),
        bytes=job.manifest.total,
        bad=tuple(bad),
        unhashed=tuple(unhashed),
        outcome="bad" if bad else "right",
    )


def _against(file: File, verdict: Verdict) -> tuple[str, str | None]:
    """The verdict on bytes that two revisions may share, read for this `file`."""
    if verdict.condition == "right" and file.digest and file.size == verdict.file.size and verdict.found != file.digest:
        other = verdict.file.expected
        if other and file.expected and other.algorithm == file.expected.algorithm:
            return "wrong-digest", verdict.found
    return verdict.condition, verdict.found


def _note(root: Path, job: Job, result: Checked, by_path: dict[Path, Verdict]) -> None:
    """Vouch for the blobs that are right and take back what was said of the others; then the marker, as it must be."""
    repo, folder = job.repo, job.repo.snapshot(result.revision)
    vouched = snapshots.verified_blobs(repo)
    places = {file: _real(folder / file.path) for file in job.manifest.files}
    for file, place in places.items():
        if by_path[place].condition == "right" and file.key not in vouched and place == _real(repo.blobs) / file.key:
            install.vouch(repo, file.key, file)
    if result.bad:
        _doubt(root, job, {Path(finding.blob).name for finding in result.bad if finding.blob})
    elif not result.unhashed and not snapshots.complete(repo, result.revision):
        _mark(root, job, {file.key: place.name for file, place in places.items() if place.parent == _real(repo.blobs)})


def _doubt(root: Path, job: Job, blobs: set[str]) -> None:
    """Take back the marker of this revision, and of every other that has one of these blobs. Raises OSError."""
    repo = job.repo
    with _private(root, repo) as private:
        install.disown(repo, blobs, private)
    for revision in snapshots.marked_revisions(repo):
        manifest = snapshots.marked(repo, revision)
        if revision == job.revision.revision or (manifest and blobs & {file.key for file in manifest.files}):
            with contextlib.suppress(FileNotFoundError):
                repo.marker(revision).replace(snapshots.doubt(repo, revision))
    if repo.markers.is_dir():
        install.sync_folder(repo.markers)


def _mark(root: Path, job: Job, names: Mapping[str, str]) -> None:
    """Mark a revision that was found whole and right, if it holds all that a start needs. Raises OSError."""
    repo, revision = job.repo, job.revision.revision
    manifest = snapshots.doubted(repo, revision)
    if manifest is None:
        wanted = cached.Wanted(repo, job.manifest.source, revision, is_revision=True)
        try:
            manifest = cached.at_hand(wanted)
        except NimctlError:
            return  # not a checkpoint that could be served: nothing to mark
    if all(file.key in names for file in manifest.files):
        with _private(root, repo) as private:
            install.snapshot(CachePaths(root), repo, manifest, names, private=private, refs=())
        snapshots.doubt(repo, revision).unlink(missing_ok=True)


@contextlib.contextmanager
def _private(root: Path, repo: RepoPaths) -> Iterator[Path]:
    folder = repo.partial / f"check-{secrets.token_hex(8)}"
    make_shared_folder(folder, root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mend(
    root: Path,
    job: Job,
    result: Checked,
    open_source: Callable[[str], Source],
    on_progress: OnProgress,
    *,
    stop: Stop,
) -> Checked:
    """Fetch what is bad of a revision again, from where it came; `open_source` opens the address.

    The result has the outcome, and the error where it failed. Raises `interrupted` when stopped.
    """
    try:
        _doubt(root, job, {Path(finding.blob).name for finding in result.bad if finding.blob})
        source = open_source(pinned(job.manifest.source, result.revision))
        listed = source.resolve()
        if listed.revision != result.revision:
            raise _moved_on(result, listed.revision)
        # what others left may not be all of it; our own marker knows more than a list with `?file=` in the address
        wanted = snapshots.doubted(job.repo, result.revision) or listed
        store.ensure(source, wanted, CachePaths(root), on_progress, stop=stop)
        snapshots.doubt(job.repo, result.revision).unlink(missing_ok=True)
    except NimctlError as error:
        if error.id == "interrupted":
            raise
        return replace(result, error=error)
    except OSError as error:
        return replace(result, error=storage_error(error, root))
    return replace(result, outcome="repaired", marked=True)


def pinned(source: str, revision: str) -> str:
    """The address `source` at exactly this revision, where addresses of its kind can say so."""
    if not source.startswith((hub.SCHEME, ngc.SCHEME)):
        return source
    address, mark, query = source.partition("?")
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition(':')[0].partition('@')[0]}:{revision}" + mark + query


def _address(repository: Repository, revision: Revision) -> str:
    """Where a revision that others left must have come from."""
    if repository.name == "nimctl/demo":
        return f"{builtin.SCHEME}demo"
    scheme = hub.SCHEME if repository.part == "huggingface" else ngc.SCHEME
    return f"{scheme}{repository.name}:{revision.revision}"


def _moved_on(result: Checked, now: str) -> NimctlError:
    return NimctlError(
        "weights-revision-unknown",
        f"{result.source} has other files now",
        cause=f"the cache holds revision {result.revision}, and the source lists {now}",
        fix="Fetch it anew with `nimctl pull --weights`, then free the old one with `nimctl cache prune`.",
    )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))

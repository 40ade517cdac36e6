"""Weights on behalf of a verb: what a remote checkpoint is, before and while it is brought into the cache."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from nimctl.cli.config import Config
from nimctl.cli.stopping import stoppable
from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, fetch, from_environment, open_source, snapshots, store
from nimctl.core.fetch.address import without_secrets
from nimctl.core.keys import HUGGING_FACE, NGC
from nimctl.core.recipes import Recipe
from nimctl.core.recipes.checkpoint import recipe_of_folder
from nimctl.doctor.model import Finding, Needs
from nimctl.render import Output

_CONFIG = "config.json"
_KEYS = {"hf": HUGGING_FACE, "ngc": NGC}


@dataclass(frozen=True)
class Brought:
    """Weights that are in the cache: where, which revision, how much."""

    source: str
    folder: Path
    revision: str
    files: int
    bytes: int

    def to_json(self) -> dict[str, object]:
        """The weights as part of a JSON document."""
        return {
            "source": self.source,
            "folder": str(self.folder),
            "revision": self.revision,
            "files": self.files,
            "bytes": self.bytes,
        }


def describe(uri: str, config: Config) -> Recipe:
    """A recipe for the checkpoint at a remote address: from its list of files and its config.json, no weights.

    Nothing is written into the cache. Raises as `fetch` does: a gated model, a wrong name or a wrong revision is found
    here, before an image is fetched.
    """
    source = open_source(uri, config.cache, access=from_environment(os.environ))
    manifest = source.resolve()
    served = re.sub(r"[^a-z0-9.]+", "-", uri.partition("://")[2].partition("?")[0].lower()).strip("-")
    with tempfile.TemporaryDirectory(prefix="nimctl-") as scratch:
        folder = CachePaths(config.cache).repo(source.repo, source.part).snapshot(manifest.revision)
        if not (folder / _CONFIG).exists():
            room = CachePaths(Path(scratch))
            folder = store.ensure(source, manifest, room, lambda _: None, only=lambda file: file.path == _CONFIG)
        recipe = recipe_of_folder(folder, name=served, weights=uri)
    return replace(
        recipe,
        title=f"the checkpoint at {without_secrets(uri)}",
        weights_bytes=manifest.total,
        key=_KEYS.get(uri.partition("://")[0]),
    )


def cached_bytes(uri: str, config: Config) -> int:
    """How many bytes of the weights at `uri` need no room any more. Asks nobody."""
    try:
        source = open_source(uri, config.cache, access=from_environment(os.environ))
    except NimctlError:
        return 0
    repo = CachePaths(config.cache).repo(source.repo, source.part)
    manifests = [snapshots.complete(repo, revision) for revision in snapshots.marked_revisions(repo)]
    whole = max((manifest.total for manifest in manifests if manifest), default=0)
    return max(whole, _begun(repo.partial) + _begun(repo.blobs))


def _begun(folder: Path) -> int:
    try:
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    except OSError:
        return 0


def bring(uri: str, config: Config, out: Output) -> Brought:
    """Fetch the weights at `uri` into the cache as they are now at the source; Ctrl-C keeps what is there.

    Raises as `fetch` does.
    """
    shown = without_secrets(uri) if "://" in uri else uri
    with stoppable() as (stop, going), out.transfer(f"weights {shown}") as view:

        def on_progress(progress: Progress) -> None:
            if progress.phase != "resolving":
                going()
            view.report(progress)

        folder = fetch(
            uri,
            config.cache,
            access=from_environment(os.environ),
            on_progress=on_progress,
            stop=stop,
            refresh=True,
        )
    return _described(shown, folder, config.cache)


def _described(shown: str, folder: Path, root: Path) -> Brought:
    """`folder` is a snapshot of the cache, or a folder that is served where it lies."""
    repo = RepoPaths(folder.parent.parent)
    if root in folder.parents and (manifest := snapshots.complete(repo, folder.name)):
        return Brought(shown, folder, folder.name, len(manifest.files), manifest.total)
    manifest = open_source(str(folder), root).resolve()
    return Brought(shown, folder, manifest.revision, len(manifest.files), manifest.total)


def check_shared(config: Config, recipe: Recipe | None, out: Output) -> list[Finding]:
    """Whether containers of uid:0 can use the cache as it is now; what is not well is said with its way out."""
    from nimctl.cli import host
    from nimctl.doctor import runner

    facts = host.look(config, out, try_port=False)
    needs = Needs(recipe=recipe, runtime="docker", gpus="none", uid=os.getuid())
    report = runner.run_checks(facts, needs, only=("cache", "cache-entries"))
    findings = [finding for finding in report.findings if finding.verdict in ("fail", "warn")]
    for finding in findings:
        out.text(f"[{finding.id}] {finding.title}: {finding.cause}. {finding.fix}", style="yellow")
    return findings

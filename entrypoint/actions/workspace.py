"""The actions `download-model` and `create-model-store`: a model in a folder of its own.

`download-model` makes a workspace, links into the cache, as NIM lays one out before it serves; `create-model-store`
makes a plain folder of real files, to be carried to a host without network and served by its path. Options as NIM has
them: https://docs.nvidia.com/nim/large-language-models/2.0.9/reference/cli-reference.html
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from entrypoint.actions import table
from entrypoint.actions.bringing import Brought, bring, drafts_of, wanted
from entrypoint.actions.doing import Desk, Options, desk, stoppable
from entrypoint.actions.download import document
from entrypoint.observability.journal import Journal
from entrypoint.weights.transfers import amount
from nimctl.core.fetch.laying import Kind, Laid, lay_out


def workspace_options() -> Options:
    """The command line of `download-model`."""
    line = Options(
        table.WORKSPACE,
        "Bring a model into the cache (NIM_CACHE_PATH), and lay its files out in a folder of links into the cache.\n"
        "NIM_MODEL_PATH takes the folder. Branches are looked up anew.",
        "download-model --model-uri hf://org/name --workspace-path /opt/nim/workspace",
    )
    line.one_model()
    why = "the folder to fill; default: a fresh one, whose path is told"
    line.parser.add_argument("--workspace-path", metavar="DIR", help=why)
    return line


def store_options() -> Options:
    """The command line of `create-model-store`."""
    line = Options(
        table.STORE,
        "Copy a model out of the cache (NIM_CACHE_PATH) into a plain folder of real files; what the cache lacks is\n"
        "brought first. Carry the folder to any host and serve it: NIM_MODEL_PATH takes its path there.\n"
        "Where both lie on one filesystem, weights share their blocks with the cache or are hard links.",
        "create-model-store -p vllm-int4-tp8-pp1 -m /model-store",
        "--model-repo",
    )
    line.one_model()
    line.parser.add_argument("-m", "--model-store", metavar="DIR", help="the folder to fill (needed)")
    return line


def download_model(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Make a workspace, and tell `output`. The exit code; raises NimctlError."""
    line = workspace_options()
    wish = line.read(arguments)
    if wish.help:
        output.line(line.help())
        return 0
    place = desk(environ, wish, output)
    found = _brought(place, wish.profile, refresh=True)
    target = Path(wish.workspace_path) if wish.workspace_path else Path(tempfile.mkdtemp(prefix="workspace-"))
    _lay_out(place, found, target.absolute(), "links")
    return 0


def create_store(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Make a model store, and tell `output`. The exit code; raises NimctlError."""
    line = store_options()
    wish = line.read(arguments)
    if wish.help:
        output.line(line.help())
        return 0
    if not wish.model_store:
        raise line.wrong("-m/--model-store names no folder")
    place = desk(environ, wish, output)
    found = _brought(place, wish.profile, refresh=False)
    _lay_out(place, found, Path(wish.model_store).absolute(), "files")
    return 0


def _brought(place: Desk, profile: str | None, *, refresh: bool) -> Brought:
    """The model in the cache; a draft model, which a folder of one model cannot hold, is brought into the cache too."""
    [model] = wanted(place.chosen, [profile] if profile else [])
    if refresh:
        for draft in drafts_of(place.chosen, [model]):
            bring(place, draft, refresh=True)
    return bring(place, model, refresh=refresh)


def _lay_out(place: Desk, found: Brought, target: Path, kind: Kind) -> None:
    began, stage = time.monotonic(), "store" if kind == "files" else "workspace"
    watcher = place.watcher(stage)
    work = partial(lay_out, found.manifest, found.path, target, kind, on_progress=watcher.on_progress)
    laid = stoppable(lambda stop: work(stop=stop), "copy")
    revision = f"revision {found.manifest.revision}, {len(found.manifest.files)} files"
    words = f"{found.source} is in {target}: {revision}, {amount(found.manifest.total)} ({_ways(laid, kind)})"
    seconds = round(found.seconds + time.monotonic() - began, 3)
    place.done(words, {**document(found), "path": str(target), "seconds": seconds}, stage=stage)


def _ways(laid: Laid, kind: Kind) -> str:
    told = {
        "there already": laid.kept,
        "linked to the cache" if kind == "links" else "hard-linked": laid.linked,
        "cloned": laid.cloned,
        "copied": laid.copied,
    }
    return ", ".join(f"{count} {words}" for words, count in told.items() if count)

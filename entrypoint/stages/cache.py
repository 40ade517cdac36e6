"""The stage `cache`: can the folder be written, and the folder for compiled code."""

import tempfile
from pathlib import Path

from entrypoint.engine.model import (
    candidates,
)
from entrypoint.run import Run
from entrypoint.weights import cachefolder
from nimctl.core.cache import PRIVATE_MODE, CachePaths
from nimctl.core.fetch import from_environment


def probe_cache(run: Run) -> bool:
    """Whether the cache can be written; one that cannot is refused unless weights that may be served lie ready.

    Which of the model's checkpoints it will be, only the GPUs tell: if it is another one, it is refused when it comes.
    """
    uris, access = candidates(run.settings), from_environment(run.environ)
    why_not = cachefolder.probe(uris, run.settings.cache_path, run.settings.cache_probe_timeout, access)
    if why_not is not None:
        run.journal.warning("cache", f"the cache is read-only ({why_not}); the weights are there, so they are served")
    return why_not is None


def private_caches(run: Run, key: str, *, cache_writable: bool) -> Path:
    """This user's own folder for compiled code: in the cache, or for this start alone where that is read-only."""
    if cache_writable:
        return CachePaths(run.settings.cache_path).engine_private(key)
    place = cachefolder.substitute((run.state.root, Path(tempfile.gettempdir()), Path("/var/tmp")))  # noqa: S108 (owner and mode are checked)
    folder = place.folder / key
    folder.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    run.journal.warning("engine", f"the cache is read-only: compiled code goes to {folder} and is lost with it")
    if not place.executable:
        told = "is mounted noexec: code that the engine compiles cannot be loaded; give it exec (--tmpfs /tmp:exec)"
        run.journal.warning("engine", f"{place.folder} {told}")
    return folder

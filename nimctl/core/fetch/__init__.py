"""Weights: from a source to a verified folder that the engine can be started on.

`protocol` says what a source is; `builtin`, `folder` and `hub` (what the cache holds already) are the sources there
are; `store` installs files in the layout of the Hugging Face cache. Network sources (`hf://`, `ngc://`, `s3://`,
`gs://`, `https://`) will get a module each, and share one `transfer` module here, which alone imports requests.
"""

from pathlib import Path

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import builtin, folder, hub, store
from nimctl.core.fetch.address import without_secrets
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import OnProgress, Progress, Source

__all__ = ["File", "Manifest", "OnProgress", "Progress", "Source", "fetch", "open_source"]


def open_source(uri: str, cache_root: Path) -> Source:
    """The source that `uri` names: `builtin://demo`, an absolute path, `file://`, or `hf://` from the cache.

    Changes nothing. Raises `weights-source-unsupported`.
    """
    if uri.startswith(builtin.SCHEME):
        return builtin.parse(uri)
    if uri.startswith(folder.SCHEME) or "://" not in uri:
        return folder.parse(uri)
    if uri.startswith(hub.SCHEME):
        return hub.cached(uri, CachePaths(cache_root))
    raise NimctlError(
        "weights-source-unsupported",
        f"weights cannot be fetched from {without_secrets(uri)}",
        cause="downloads are not in this version",
        fix="Put the checkpoint into a folder (for example with `hf download`) and pass the folder.",
    )


def fetch(uri: str, cache_root: Path, *, on_progress: OnProgress = lambda _: None) -> Path:
    """The folder to start the engine on: the source's own where it is local, else the verified snapshot in the cache.

    May be interrupted at any point, and run by any number of processes at once: what is not complete is never taken
    for complete. Raises `weights-*`, `cache-not-writable`, `cache-unreachable`, `disk-full`.
    """
    source = open_source(uri, cache_root)
    manifest = source.resolve()
    if source.in_place is not None:
        on_progress(Progress(manifest.total, manifest.total))
        return source.in_place
    return store.ensure(source, manifest, CachePaths(cache_root), on_progress)

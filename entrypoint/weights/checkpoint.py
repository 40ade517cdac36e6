"""The checkpoint of one start: looked at before the layout is decided, brought before the engine starts.

The revision is resolved once, so that what was looked at is what is brought. What is small comes first: whether a model
fits is known after a few files, and not after 600 GB.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entrypoint.weights import runtime_config
from nimctl.core.cache import CachePaths
from nimctl.core.engine_options import Option
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import (
    ANONYMOUS,
    Access,
    File,
    Manifest,
    OnProgress,
    Progress,
    Stop,
    open_source,
    snapshots,
    store,
)
from nimctl.core.fetch.asking import Asking
from nimctl.core.fetch.http import Client
from nimctl.core.fetch.manifest import content_digest
from nimctl.core.fetch.protocol import Generator
from nimctl.core.fetch.sources.selection import TENSORS

CONFIG, EXPORTED = "config.json", "hf_quant_config.json"
_SMALL = 64 * 2**20  # bytes; tokenizers and indices of the largest models have a few tens of MB


@dataclass(frozen=True)
class Look:
    """What is known of a checkpoint: its `config.json`, the bytes of its weights, and its `hf_quant_config.json`.

    None where that is not at hand. `runtime` are the engine options of its `runtime_config.json`.
    """

    config: dict[str, Any] | None = None
    weights_bytes: int | None = None
    exported: dict[str, Any] | None = None
    runtime: tuple[Option, ...] = ()


class Checkpoint:
    """The checkpoint at `uri` on its way into the cache at `cache`; `close` it at the end.

    Raises `weights-source-unsupported`. With `refresh`, a branch is looked up anew though the cache holds it. Of other
    weights than those whose `content_digest` is `wanted` nothing is brought: `lock-differs`.
    """

    def __init__(
        self, uri: str, cache: Path, access: Access, *, stop: Stop, refresh: bool = False, wanted: str | None = None
    ) -> None:
        self.cache = cache
        self._client = Client(offline=access.offline)
        self._paths = CachePaths(cache)
        self._stop = stop
        self._asking = Asking(stop)
        self._source = open_source(
            uri, cache, access=access, client=self._client, refresh=refresh, patience=self._asking.patience
        )
        self._manifest: Manifest | None = None
        self._wanted = wanted

    @property
    def manifest(self) -> Manifest:
        """Every file at the resolved revision. Raises `weights-*`, `key-*` and others: see `fetch`."""
        if self._manifest is None:
            self._manifest = self._source.resolve()
        return self._manifest

    @property
    def recorded(self) -> Manifest:
        """The manifest as the cache has it once all is brought: with the digests that the source did not give."""
        if self._source.in_place is not None:
            return self.manifest
        known = snapshots.complete(self._paths.repo(self._source.repo, self._source.part), self.manifest.revision)
        return self.manifest if known is None else replace(known, files=self._of(known))

    def _of(self, known: Manifest) -> tuple[File, ...]:
        """The files of `known` that are wanted now: others of the revision may have been brought earlier."""
        wanted = {file.path for file in self.manifest.files}
        return tuple(file for file in known.files if file.path in wanted)

    def look(self, on_progress: OnProgress) -> Look:
        """Bring what is small, and say what it tells. Raises as `bring` does."""
        folder = self._source.in_place
        if folder is not None:
            if self._wanted is not None:  # to know its digest, all its weights are opened, which may take long
                self._require(self.manifest)
            return look_into(folder)
        weights_bytes = _weights_bytes(self._resolved(on_progress))
        if isinstance(self._source, Generator):
            return Look(None, weights_bytes)
        snapshot = store.ensure(
            self._source, self.manifest, self._paths, on_progress, stop=self._stop, only=_tells_about_the_model
        )
        return _look(snapshot, weights_bytes)

    def bring(self, on_progress: OnProgress) -> Path:
        """The folder to start the engine on, complete and verified. Raises as `nimctl.core.fetch.fetch` does."""
        if self._source.in_place is not None:
            manifest = self.manifest
            on_progress(Progress(manifest.total, manifest.total, phase="done"))
            return self._source.in_place
        folder = store.ensure(self._source, self._resolved(on_progress), self._paths, on_progress, stop=self._stop)
        self._require(self.recorded)
        return folder

    def lacking(self) -> int:
        """At least so many bytes are still to be written, of files that are known: what partial files hold is there."""
        if self._source.in_place is not None or isinstance(self._source, Generator):
            return 0
        repo = self._paths.repo(self._source.repo, self._source.part)
        names = snapshots.names_of_undigested(repo)
        files = {file.key: file for file in self.manifest.files}
        blobs = {key: key if file.digest else names.get(key, key) for key, file in files.items()}
        missing = [file for key, file in files.items() if not os.path.exists(repo.blobs / blobs[key])]  # noqa: PTH110 (raises for nothing)
        return sum(max(0, f.size - sum(map(_allocated, repo.partial.glob(f"*/{f.key}.data")))) for f in missing)

    def _resolved(self, on_progress: OnProgress) -> Manifest:
        if self._manifest is None:
            self._manifest = self._asking.resolve(self._source, on_progress)
            if all(file.digest for file in self._manifest.files):  # else it is known once all is here
                self._require(self._manifest)
        return self._manifest

    def _require(self, manifest: Manifest) -> None:
        """Refuse (`lock-differs`) what is not wanted."""
        if self._wanted is None or content_digest(manifest.files) == self._wanted:
            return
        raise NimctlError(
            "lock-differs",
            f"the weights of {manifest.source} are not those of the lock",
            cause=f"its files at revision {manifest.revision} have other names, sizes or digests",
            fix="`nimctl lock --check` names each difference; `nimctl lock` locks what is there now.",
        )

    def close(self) -> None:
        """Close what connections are left."""
        self._client.close()


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _tells_about_the_model(file: File) -> bool:
    return file.size <= _SMALL and not file.path.endswith(TENSORS)


def _weights_bytes(manifest: Manifest) -> int | None:
    return sum(file.size for file in manifest.files if file.path.endswith(TENSORS)) or None


def look_into(folder: Path) -> Look:
    """What a folder tells by its config.json and the sizes of its files; what is wrong with it is told when served."""
    try:
        weights_bytes = sum(file.stat().st_size for file in folder.glob(f"*{TENSORS}")) or None
    except OSError:
        weights_bytes = None
    return _look(folder, weights_bytes)


def _look(folder: Path, weights_bytes: int | None) -> Look:
    """What the small files tell. Raises `config-invalid` for a runtime_config.json that cannot be read."""
    return Look(_document(folder, CONFIG), weights_bytes, _document(folder, EXPORTED), runtime_config.read(folder))


def _document(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def peek(uri: str, cache: Path, access: Access = ANONYMOUS) -> Look:
    """What can be told of a checkpoint with neither the network nor a change of the cache.

    Raises `config-invalid` for a runtime_config.json that cannot be read.
    """
    try:
        source = open_source(uri, cache, access=replace(access, offline=True))
        manifest = None if source.in_place is not None or isinstance(source, Generator) else source.resolve()
    except NimctlError:
        return Look()
    if source.in_place is not None:
        return look_into(source.in_place)
    if manifest is None:
        return Look()
    snapshot = CachePaths(cache).repo(source.repo, source.part).snapshot(manifest.revision)
    return _look(snapshot, _weights_bytes(manifest))


def lies_ready(uri: str, cache: Path, access: Access = ANONYMOUS) -> bool:
    """Whether nothing has to be fetched or written to serve `uri`: it is a folder, or as a whole in the cache."""
    try:
        source = open_source(uri, cache, access=replace(access, offline=True))
        if source.in_place is not None:
            return True
        manifest = source.resolve()  # of a remote source, offline: only what lies in the cache as a whole
    except NimctlError:
        return False
    if isinstance(source, Generator):
        return store.is_complete(CachePaths(cache).repo(source.repo, source.part), manifest)
    return True

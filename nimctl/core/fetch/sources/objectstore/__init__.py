"""Checkpoints in object stores: `s3://bucket/folder`, `gs://bucket/folder`. Only this package imports obstore.

The library lists, signs and streams; repeating is left to the transfer, so its own retries are off and no silence is
longer than `opened` allows. An object store has no revisions: what was listed is pinned by the ETag of every object
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-reads.html), sent as If-Match and compared with what
comes back. An ETag is taken for no digest: under KMS, SSE-C or multipart uploads it is none, and a listing does not say
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
"""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote

import obstore

from nimctl.core.cache import Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import retry
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import Interrupted, RangeIgnored, RangeStream
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import cached, checksums, listing, objectstore_errors, selection
from nimctl.core.fetch.sources import objectstore_settings as settings
from nimctl.core.fetch.sources.objectstore import opened
from nimctl.core.fetch.sources.objectstore.opened import Store
from nimctl.core.fetch.sources.objectstore_errors import Asked
from nimctl.core.fetch.sources.objectstore_stream import ObjectStream
from nimctl.core.fetch.sources.opening import Opening

SCHEMES = ("s3://", "gs://")
T = TypeVar("T")
_ADDRESS = re.compile(
    r"(?P<scheme>s3|gs)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,221})(?:/(?P<folder>.*?))?(?:\?(?P<query>file=.*))?"
)
_MOST_FILES = 100_000
# What follows the flat key of a checkpoint in a bucket filled for NIM; see `override`.
_FLAT_MARK = "%3Ffile%3D"


class ObjectStoreSource:
    """One folder of a bucket. May be used by many threads."""

    part: Part = "huggingface"
    in_place: None = None
    refs = ("main",)

    def __init__(
        self,
        scheme: settings.Scheme,
        bucket: str,
        folder: str,
        only: tuple[str, ...],
        opening: Opening,
    ) -> None:
        self._scheme, self._bucket, self._folder = scheme, bucket, folder
        self._address = f"{scheme}://{bucket}" + (f"/{folder}" if folder else "")
        self._settings = settings.read(scheme, opening.access.object_store)
        where = f"{bucket}/{folder}" + (f" at {self._settings.endpoint}" if self._settings.endpoint else "")
        self.repo = checksums.cache_name(scheme, where)
        source = self._address + listing.asking_for(only)
        self._wanted = cached.Wanted(opening.paths.repo(self.repo, self.part), source, "main", False, only)
        self._opening = opening
        self._lock = threading.Lock()
        self._borrows = False  # the machine's own role signs
        self._store: Store | None = None
        self._keys: dict[str, str] = {}  # path in the checkpoint: key in the bucket
        self._pins: dict[str, str] = {}  # path in the checkpoint: ETag
        self._listed = False

    def __repr__(self) -> str:
        return f"ObjectStoreSource({self._wanted.source!r})"

    def resolve(self) -> Manifest:
        """List the folder, unless the cache decides; see `cached.resolve`.

        Raises `weights-*`, `key-missing`, `key-refused`, `config-invalid`, `clock-wrong`, `tls-untrusted`,
        `proxy-refused`.
        """
        return cached.resolve(self._wanted, self._ask, self._opening)

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        """The bytes [start, stop) of `file` as it was listed; see `protocol.Remote`."""
        with self._lock:
            if not self._listed:  # the cache answered `resolve`, and now lacks a file
                self._list(self._opening.patience.amid_transfer)
            key, pin = self._keys.get(file.path), self._pins.get(file.path)
        if key is None:
            raise objectstore_errors.absent(self._asked, f"it holds no {file.path!r:.200}")
        options: dict[str, Any] = {"range": (start, stop)}
        if pin:
            options["if_match"] = pin
        elif file.digest is None and (start, stop) != (0, file.size):
            raise RangeIgnored  # without ETag and digest, two answers might be of two files
        stream = ObjectStream(lambda: self._open(key, options), stop - start, self._translated)
        try:
            meta = stream.meta
            if meta["size"] != file.size or (pin and meta["e_tag"] != pin):
                raise objectstore_errors.changed(self._asked, file.path)
            if stream.range != (start, stop):
                raise Interrupted(f"the store answered bytes {stream.range} where {start}-{stop - 1} were asked for")
        except BaseException:
            stream.close()
            raise
        return stream

    async def _open(self, key: str, options: dict[str, Any]) -> Any:
        return await obstore.get_async(self._ready_store(), key, options=cast("Any", options))

    @property
    def _asked(self) -> Asked:
        return Asked(self._address, self._settings.with_key or self._borrows, self._settings.variables)

    def _ask(self, patience: Patience) -> Manifest:
        shown = f"the file list of {self._address}"
        with self._lock:
            files = self._list(patience)
            documents = {file.path: file for file in files}
            if checksums.MANIFEST in documents:
                promised = checksums.manifest_files(
                    self._document(documents[checksums.MANIFEST], patience), f"{self._address}/{checksums.MANIFEST}"
                )
                files = checksums.with_manifest(files, promised, self._address)
            elif name := next((name for name in checksums.SUMS if name in documents), None):
                body = self._document(documents[name], patience)
                files = checksums.with_sums(files, checksums.sums(body, f"{self._address}/{name}"))
        if not files:
            raise objectstore_errors.absent(self._asked, "no object of the bucket lies below it")
        chosen = selection.choose(listing.merged(files, shown), self._address, only=self._wanted.only)
        revision = checksums.revision(chosen, self._pins)
        pinned = checksums.pinned(chosen, self._pins)
        return cached.complete(self._wanted, revision) or Manifest(self._wanted.source, revision, pinned)

    def _document(self, file: File, patience: Patience) -> bytes:
        if file.size > checksums.LARGEST:
            raise listing.wrong_shape(f"{self._address}/{file.path}", f"it has {file.size} bytes")
        options: Any = {"if_match": self._pins[file.path]} if file.path in self._pins else {}
        return self._persist(
            lambda store: bytes(obstore.get(store, self._keys[file.path], options=options).bytes()), file.path, patience
        )

    def _list(self, patience: Patience) -> list[File]:
        """Every file below the folder; the keys and pins are kept. Tries without a key first where none is given."""
        try:
            found = self._persist(self._entries, f"the file list of {self._address}", patience)
        except NimctlError as refusal:
            if refusal.id != "key-missing" or self._borrows or not self._settings.may_borrow:
                raise
            self._borrows, self._store = True, None
            try:
                found = self._persist(self._entries, f"the file list of {self._address}", replace(patience, attempts=1))
            except NimctlError as error:
                if error.id.startswith("weights-source"):
                    raise refusal from error
                raise
        shown = f"the file list of {self._address}"
        files = [listing.remote_file(path, meta["size"], None, shown) for path, (_, meta) in found.items()]
        self._keys = {path: key for path, (key, _) in found.items()}
        self._pins = {path: meta["e_tag"] for path, (_, meta) in found.items() if _is_strong(meta["e_tag"])}
        self._listed = True
        return listing.merged(files, shown)

    def _entries(self, store: Store) -> dict[str, tuple[str, Any]]:
        """Key and description by path: of the folder, else of the flat keys that stand for one."""
        found: dict[str, tuple[str, Any]] = {}
        below = f"{self._folder}/" if self._folder else ""
        for chunk in obstore.list(store, self._folder or None, chunk_size=1000):
            for meta in chunk:
                if path := meta["path"].removeprefix(below):
                    found[path] = (meta["path"], meta)
            if len(found) > _MOST_FILES:
                raise listing.wrong_shape(self._address, f"it lists more than {_MOST_FILES} files")
        # Consoles make "folders": empty objects whose final slash the library drops.
        parents = {path.rpartition("/")[0] for path in found}
        found = {path: entry for path, entry in found.items() if entry[1]["size"] or path not in parents}
        found.pop(self._folder, None)
        return found or (self._flat(store) if self._folder else {})

    def _flat(self, store: Store) -> dict[str, tuple[str, Any]]:
        start = self._folder + _FLAT_MARK
        found: dict[str, tuple[str, Any]] = {}
        for chunk in obstore.list(store, self._folder.rpartition("/")[0] or None, offset=start, chunk_size=1000):
            for meta in chunk:
                if not meta["path"].startswith(start):  # the listing is in the order of the keys
                    return found
                found[unquote(meta["path"].removeprefix(start))] = (meta["path"], meta)
        return found

    def _persist(self, action: Callable[[Store], T], what: str, patience: Patience) -> T:
        def once() -> T:
            if self._opening.access.offline:
                raise NimctlError(
                    "weights-offline",
                    f"{self._address} would have to be asked, and the network must not be used",
                    cause="HF_HUB_OFFLINE is set",
                    fix="Unset it, or bring the complete weights into the cache where there is a network.",
                )
            try:
                return action(self._ready_store())
            except (obstore.exceptions.BaseError, FileNotFoundError, ValueError) as error:
                raise self._translated(error) from error

        return retry.persist(once, what, patience)

    def _translated(self, error: Exception) -> Exception:
        return objectstore_errors.translated(type(error).__name__, str(error), self._asked)

    def _ready_store(self) -> Store:
        if self._store is None:
            self._store = opened.store(
                self._scheme, self._bucket, self._settings, self._asked, signed=self._settings.with_key or self._borrows
            )
        return self._store


def parse(uri: str, opening: Opening) -> ObjectStoreSource:
    """The source that `uri` names: `s3://bucket/folder` or `gs://bucket/folder`, then `?file=path` for single files.

    No network is used. A key in a bucket may hold any character, so nothing of the address is decoded. Raises
    `weights-source-unsupported`, and `config-invalid` for settings that make no sense.
    """
    match = _ADDRESS.fullmatch(uri)
    try:
        if match is None:
            raise ValueError("such an address reads s3://bucket/folder or gs://bucket/folder")
        folder = (match["folder"] or "").strip("/")
        if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
            raise ValueError("its folder has an empty part, a . or a ..")
        only = listing.selected(match["query"] or "")
    except ValueError as error:
        raise NimctlError(
            "weights-source-unsupported",
            f"{uri.partition('?')[0].rpartition('@')[2]!r:.200} is not a folder of an object store",
            cause=str(error),
            fix="Correct the address.",
        ) from error
    scheme = cast('Literal["s3", "gs"]', match["scheme"])
    return ObjectStoreSource(scheme, match["bucket"], folder, only, opening)


def _is_strong(etag: str | None) -> bool:
    return bool(etag) and not str(etag).startswith("W/")

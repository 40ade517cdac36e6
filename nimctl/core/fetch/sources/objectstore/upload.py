"""Writing into a bucket: parts of bounded size, whole objects only, and the digest beside each as metadata.

An object appears when its last part has arrived and not before:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html, https://cloud.google.com/storage/docs/xml-api/reference-methods.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import obstore

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import retry
from nimctl.core.fetch.access import Access
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import objectstore_errors, objectstore_settings
from nimctl.core.fetch.sources.objectstore import opened
from nimctl.core.fetch.sources.objectstore.opened import Store
from nimctl.core.fetch.sources.objectstore_errors import Asked

T = TypeVar("T")
_ADDRESS = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,221})(?:/(?P<folder>[^?#]*))?")
# S3 takes 10,000 parts of 5 MiB to 5 GiB: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_SMALLEST_PART = 16 * 2**20
_MOST_PARTS = 9_000
_AT_ONCE = 6  # parts under way; with the one that is read, what the memory holds of a file
_PART_RETRIES = 3  # by the library, within one attempt
PATIENCE = Patience(attempts=4)
_DIGEST = "nimctl-digest"  # metadata of an object


def part_size(size: int) -> int:
    """Bytes of one part of a file of `size` bytes."""
    return max(_SMALLEST_PART, -(-size // _MOST_PARTS))


class Bucket:
    """The bucket of `address` (`s3://bucket[/folder]` or `gs://...`), to be written. Keys begin at the bucket's root.

    Raises `config-invalid` for an address or for settings that make no sense; nobody is asked yet.
    """

    def __init__(self, address: str, access: Access, patience: Patience = PATIENCE) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise NimctlError(
                "config-invalid",
                f"{address.partition('?')[0].rpartition('@')[2]!r:.200} is no place in an object store",
                cause="such an address reads s3://bucket, s3://bucket/folder or gs://bucket",
                fix="Correct the address.",
            )
        scheme = cast("objectstore_settings.Scheme", match["scheme"])
        self.name = f"{match['scheme']}://{match['bucket']}"
        self.folder = (match["folder"] or "").strip("/")
        self._settings = objectstore_settings.read(scheme, access.object_store)
        self._scheme, self._bucket, self._patience = scheme, match["bucket"], patience
        self._signed = self._settings.with_key or self._settings.may_borrow  # nobody may write without a key
        self._store: Store | None = None

    @property
    def _asked(self) -> Asked:
        return Asked(self.name, self._signed, self._settings.variables)

    def sizes(self, start: str) -> dict[str, int]:
        """The size of every object whose key begins with `start`. Raises as `put`."""

        def listed(store: Store) -> dict[str, int]:
            found: dict[str, int] = {}
            for chunk in obstore.list(store, start.rpartition("/")[0] or None, offset=start, chunk_size=1000):
                for meta in chunk:
                    if not meta["path"].startswith(start):  # the listing is in the order of the keys
                        return found
                    found[meta["path"]] = meta["size"]
            return found

        return self._persist(listed, f"the objects of {self.name} could not be listed")

    def digest(self, key: str) -> str | None:
        """The digest that was written beside the object `key`, None where there is none."""

        def looked(store: Store) -> str | None:
            try:
                found: Any = obstore.get(store, key, options={"head": True}).attributes
            except FileNotFoundError:
                return None
            return next((str(value) for name, value in found.items() if str(name).lower() == _DIGEST), None)

        return self._persist(looked, f"{key} of {self.name} could not be looked at")

    def put(self, key: str, size: int, digest: str | None, parts: Callable[[int], Iterator[bytes]]) -> None:
        """Write the object `key` of `size` bytes; `parts(bytes)` gives its content anew, in parts of so many bytes.

        What `parts` raises ends the upload, and no object appears. Raises `key-missing`, `key-refused`,
        `weights-not-found` (no such bucket), `weights-source-failed` or `-unreachable`, `config-invalid`,
        `clock-wrong`, `tls-untrusted`, `proxy-refused`, and `interrupted` when stopped between two attempts.
        """
        part = part_size(size)
        attributes: Any = {_DIGEST: digest} if digest else {}

        def send(store: Store) -> None:
            if size <= part:
                whole = b"".join(parts(part))
                obstore.put(store, key, whole, attributes=attributes, use_multipart=False)
            else:
                obstore.put(
                    store,
                    key,
                    parts(part),
                    attributes=attributes,
                    use_multipart=True,
                    chunk_size=part,
                    max_concurrency=_AT_ONCE,
                )

        self._persist(send, f"{key} could not be written to {self.name}")

    def _persist(self, action: Callable[[Store], T], failure: str) -> T:
        def once() -> T:
            try:
                return action(self._ready())
            except (obstore.exceptions.BaseError, FileNotFoundError, ValueError) as error:
                raise objectstore_errors.translated(type(error).__name__, str(error), self._asked) from error

        try:
            return retry.persist(once, self.name, self._patience)
        except NimctlError as error:
            raise self._as_told_here(error, failure) from error

    def _as_told_here(self, error: NimctlError, failure: str) -> NimctlError:
        """`error` in the words of somebody who writes: the reader's speak of weights that are not handed out."""
        message, fix = error.message, error.fix
        if error.id == "weights-not-found":
            message, fix = f"there is no bucket {self.name}", "Make the bucket, or correct name, region and endpoint."
        elif error.id in ("key-missing", "key-refused"):
            fix = f"Set {self._settings.variables} to a key that may list, read and write the bucket."
        elif error.id in ("weights-source-failed", "weights-source-unreachable"):
            message = failure
            fix = "Run it again: what has arrived is not sent again. If it goes on, check the endpoint and the network."
        return NimctlError(error.id, message, cause=error.cause, fix=fix, evidence=error.evidence)

    def _ready(self) -> Store:
        if self._store is None:
            self._store = opened.store(
                self._scheme, self._bucket, self._settings, self._asked, signed=self._signed, retries=_PART_RETRIES
            )
        return self._store

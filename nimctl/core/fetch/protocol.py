"""What a source of weights is to the rest of the house: one protocol, one module for each source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from nimctl.core.cache import Part
from nimctl.core.fetch.manifest import File, Manifest

FileState = Literal["waiting", "fetching", "verifying", "moving", "done"]
Phase = Literal["resolving", "waiting", "fetching", "verifying", "copying", "uploading", "done"]


@dataclass(frozen=True)
class FileProgress:
    """One file of a fetch: bytes on the disk of `size`, and what is happening to it."""

    path: str
    bytes: int
    size: int
    state: FileState


@dataclass(frozen=True)
class Progress:
    """How far a fetch is.

    `bytes` are on the disk, of `total` (None: not known). `rate` is in bytes a second over the last seconds, `eta` in
    seconds; both None until they can be told. `retries` counts requests that had to be repeated. `phase` is `waiting`
    while another process fetches the same weights, `verifying` while bytes that were there already are hashed,
    `copying` and `uploading` while what lies in the cache is brought elsewhere.
    `detail` says in words what it waits for.
    """

    bytes: int
    total: int | None = None
    file: str | None = None
    rate: float | None = None
    eta: float | None = None
    retries: int = 0
    connections: int = 0
    phase: Phase = "fetching"
    detail: str | None = None
    files: tuple[FileProgress, ...] = ()


OnProgress = Callable[[Progress], None]


class Source(Protocol):
    """Where the files of a checkpoint come from.

    `repo` names the checkpoint in the `part` of the cache ("org/name"). `in_place` is the folder that is served as it
    stands; where it is None, the files have to be brought into the cache first.
    """

    @property
    def repo(self) -> str:
        """The checkpoint's name in the cache."""

    @property
    def part(self) -> Part:
        """The part of the cache that it belongs to."""

    @property
    def in_place(self) -> Path | None:
        """The folder that needs no copy."""

    def resolve(self) -> Manifest:
        """Pin the revision and list every file. Raises a `weights-*` NimctlError."""


@runtime_checkable
class Generator(Source, Protocol):
    """A source that makes its files itself, all of them at once."""

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        """Write the files of `manifest` into the existing, empty `folder`; the caller verifies and installs them."""


class RangeStream(Protocol):
    """The bytes of one range, as they arrive."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer` and say how many bytes; 0 at the end of the range. Raises `Interrupted`."""

    def abort(self) -> None:
        """Break the connection from another thread: a `readinto` that waits returns at once."""

    def close(self) -> None:
        """Give the connection back, or drop it where bytes are still to come."""


@runtime_checkable
class Remote(Source, Protocol):
    """A source whose files are read by ranges over a network."""

    @property
    def refs(self) -> tuple[str, ...]:
        """Names in `refs/` that point at the resolved revision, such as `main`."""

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        """The bytes [start, stop) of `file`. Called from several threads.

        Raises `Interrupted` for what may go away by itself, `RangeIgnored` where the source can only send the whole
        file, and a NimctlError (`weights-*`, `key-*`, `terms-not-accepted`, ...) for what will not.
        """


class Interrupted(Exception):  # noqa: N818 (not an error yet: it will be tried again)
    """A transfer stopped for a reason that may pass: `reason` in words, `retry_after` in seconds if the server said.

    `crowded` asks for fewer connections (429, 503); `error` is what to raise when it does not pass.
    """

    def __init__(
        self,
        reason: str,
        *,
        id: str = "weights-source-failed",  # noqa: A002 (the catalogue's word)
        retry_after: float | None = None,
        crowded: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id
        self.retry_after = retry_after
        self.crowded = crowded


class RangeIgnored(Exception):  # noqa: N818 (an answer, not an error)
    """The server sends the whole file whatever range is asked for."""

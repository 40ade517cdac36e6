"""What tests do to the registry: blobs that are cut, slowed or changed, a tag that moves, storage that rots, a restart.

A fault holds for the repositories of an fnmatch pattern, so that tests with repositories of their own do not meet.
"""

import contextlib
import http.client
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import registry
from .paths import Paths
from .steps import LabError, locked


@dataclass(frozen=True)
class Served:
    """What one repository was asked for with a token, and the bytes of the bodies that left.

    Counted since the registry started; a `-` gives what was served between two looks.
    """

    manifests: int = 0
    blobs: int = 0
    manifests_bytes: int = 0
    blobs_bytes: int = 0

    def __sub__(self, other: "Served") -> "Served":
        return Served(
            self.manifests - other.manifests,
            self.blobs - other.blobs,
            self.manifests_bytes - other.manifests_bytes,
            self.blobs_bytes - other.blobs_bytes,
        )


@contextlib.contextmanager
def fault(
    paths: Paths, repository: str, *, blob: str = "*", times: int | None = None, after: int = 0, **what: int
) -> Iterator[None]:
    """Let GETs of blobs go wrong: of this digest or all, from request `after` + 1 on, `times` times or always.

    One or more of: cut=N (the connection ends after N bytes), stall=N (nothing follows them), rate=R (bytes a second),
    flip=OFFSET (one bit of that byte of the blob is another), status=CODE (no blob but this).
    """
    unknown = set(what) - {"cut", "stall", "rate", "flip", "status"}
    if unknown or not what:
        raise LabError(f"no fault of blobs is called {', '.join(sorted(unknown)) or 'nothing'}", "see faults.py")
    with _set(paths, {"repository": repository, "blob": blob, "tag": None, "times": times, "after": after, **what}):
        yield


@contextlib.contextmanager
def swapped_tag(paths: Paths, repository: str, tag: str, digest: str, *, after: int = 0) -> Iterator[None]:
    """Let a tag mean another manifest of the repository, from the (`after` + 1)-th request for it on (HEADs count)."""
    rule = {"repository": repository, "blob": None, "tag": tag, "times": None, "after": after, "swap": digest}
    with _set(paths, rule):
        yield


@contextlib.contextmanager
def rotten_blob(paths: Paths, digest: str, offset: int = 0) -> Iterator[None]:
    """One bit of a stored blob is another on the registry's disk, for all repositories that have it."""
    file = blob_file(paths, digest)
    _flip(file, offset)
    try:
        yield
    finally:
        _flip(file, offset)


def blob_file(paths: Paths, digest: str) -> Path:
    """Where the registry stores a blob or manifest."""
    algorithm, _, value = digest.partition(":")
    return paths.registry / "data/docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"


@contextlib.contextmanager
def registry_down(paths: Paths) -> Iterator[None]:
    """Nothing listens at the registry's address; it is back with its images, and without situations, at the end.

    Whoever wants the lab up waits so long: nothing inside may call `lab.up`.
    """
    with locked(paths.lock):
        registry.stop_registry(paths)
        try:
            yield
        finally:
            registry.start_registry(paths)


def served(paths: Paths, repository: str) -> Served:
    """What this repository has served so far."""
    connection = http.client.HTTPConnection(registry.info(paths).address, timeout=10)
    try:
        connection.request("GET", "/lab/served")
        return Served(**json.loads(connection.getresponse().read()).get(repository, {}))
    finally:
        connection.close()


@contextlib.contextmanager
def _set(paths: Paths, rule: dict[str, object]) -> Iterator[None]:
    name = secrets.token_hex(8)
    with registry.configuration(paths) as config:
        config["faults"] = [{"id": name, **rule}, *config["faults"]]
    try:
        yield
    finally:
        with registry.configuration(paths) as config:
            config["faults"] = [one for one in config["faults"] if one["id"] != name]


def _flip(file: Path, offset: int) -> None:
    with file.open("r+b") as stored:
        stored.seek(offset)
        byte = stored.read(1)[0]
        stored.seek(offset)
        stored.write(bytes([byte ^ 1]))

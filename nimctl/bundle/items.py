"""What is packed: the files of a bundle as they are wanted, each with a way to read its bytes."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 4 * 2**20


@dataclass(frozen=True)
class Item:
    """One file to pack: what it is called, and how its bytes are read from an offset.

    `digest` (`sha256:...`, `git-sha1:...`) is what it must have; None where nobody knows. `origin` is a local file that
    holds these bytes and may be linked. `wrong` is the id of the error where the bytes are others.
    """

    path: str
    size: int
    read: Callable[[int], Iterator[bytes]]
    digest: str | None = None
    origin: Path | None = None
    wrong: str = "image-tampered"
    once: bool = False  # a stream that cannot be read a second time

    @property
    def token(self) -> str:
        """What it is made from: the same token, the same bytes. Empty: not known, so it is packed anew."""
        return self.digest or ""


def of_bytes(path: str, content: bytes) -> Item:
    """A small file that is at hand."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Item(path, len(content), lambda offset: iter((content[offset:],)), digest)


def of_file(path: str, origin: Path, digest: str | None, wrong: str, *, linked: bool = True) -> Item:
    """A file of this host."""
    real = Path(os.path.realpath(origin))

    def read(offset: int) -> Iterator[bytes]:
        with real.open("rb") as content:
            content.seek(offset)
            while block := content.read(_BLOCK):
                yield block

    return Item(path, real.stat().st_size, read, digest, real if linked else None, wrong)


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()

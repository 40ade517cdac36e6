"""Content digests as sources give them: SHA-256 for large files, git's hash for small ones, MD5 in object stores.

Written `algorithm:hex`, such as `sha256:9f86d0…`. In the Hugging Face cache a blob is named by the hexadecimal part
alone, so 64 digits mean SHA-256 and 40 digits git's SHA-1:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

_LENGTH = {"sha256": 64, "git-sha1": 40, "md5": 32}
_OF_BLOB_NAME = {64: "sha256", 40: "git-sha1"}


class Hasher(Protocol):
    """A running hash, as hashlib's objects are; `update` frees the GIL."""

    def update(self, data: memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in hexadecimal."""


@dataclass(frozen=True)
class Digest:
    """One expected digest: `algorithm` is sha256, git-sha1 or md5, `hex` its lower-case hexadecimal value.

    Raises ValueError for anything else.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = _LENGTH.get(self.algorithm)
        if length is None or not re.fullmatch(f"[0-9a-f]{{{length}}}", self.hex):
            raise ValueError(f"not a digest: {self.algorithm}:{self.hex}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def hasher(self, size: int) -> Hasher:
        """A fresh hash for a file of `size` bytes (git hashes the size before the content)."""
        if self.algorithm == "sha256":
            return hashlib.sha256()
        if self.algorithm == "md5":
            return hashlib.md5(usedforsecurity=False)
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def parse(text: str) -> Digest:
    """The digest written as `algorithm:hex`. Raises ValueError."""
    algorithm, _, value = text.partition(":")
    return Digest(algorithm, value.lower())


def of_blob_name(name: str) -> Digest | None:
    """The digest that the name of a blob in the Hugging Face cache promises, None where it promises none."""
    algorithm = _OF_BLOB_NAME.get(len(name))
    try:
        return Digest(algorithm, name) if algorithm else None
    except ValueError:
        return None


def sha256() -> Hasher:
    """A fresh SHA-256: what is recorded for a file whose source gives no digest."""
    return hashlib.sha256()

"""What the hub serves: bytes in memory, or contents of any size that are computed as they are read."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Protocol

BLOCK = 64 * 1024  # bytes; every block of a Sparse content begins with its own number
CHUNK = 256 * 1024  # bytes handed to a socket or a hash at a time


class Content(Protocol):
    """Bytes with a known size, readable at any offset."""

    def __hash__(self) -> int:
        """Equal contents hash equally: their checksums are remembered."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; shorter only at the end."""


@dataclass(frozen=True)
class InMemory:
    """A small content."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Sparse:
    """`size` bytes that need no memory: one seeded random block, repeated, each repetition marked with its number.

    Two offsets never hold the same 64 KiB, so that bytes written at the wrong place change the checksum.
    """

    size: int
    seed: int = 0

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        tail = _tail(self.seed)
        first, last = offset // BLOCK, (end - 1) // BLOCK
        blocks = b"".join(number.to_bytes(8) + tail for number in range(first, last + 1))
        return blocks[offset - first * BLOCK : end - first * BLOCK]


@cache
def _tail(seed: int) -> bytes:
    return random.Random(seed).randbytes(BLOCK - 8)


@dataclass(frozen=True)
class Flipped:
    """Another content with one bit turned over."""

    of: Content
    at: int
    bit: int = 0

    @property
    def size(self) -> int:
        return self.of.size

    def read(self, offset: int, length: int) -> bytes:
        data = self.of.read(offset, length)
        if not offset <= self.at < offset + len(data):
            return data
        changed = bytearray(data)
        changed[self.at - offset] ^= 1 << self.bit
        return bytes(changed)


@dataclass(frozen=True)
class Inverted:
    """Another content with every bit turned over: the right length and nothing else right."""

    of: Content

    @property
    def size(self) -> int:
        return self.of.size

    def read(self, offset: int, length: int) -> bytes:
        return self.of.read(offset, length).translate(_INVERSE)


_INVERSE = bytes(255 - byte for byte in range(256))


def as_content(data: "bytes | Content") -> Content:
    return InMemory(data) if isinstance(data, bytes) else data


def chunks(content: Content, start: int, length: int) -> Iterator[bytes]:
    """The bytes from `start` on in pieces of at most 256 KiB."""
    for offset in range(start, start + length, CHUNK):
        yield content.read(offset, min(CHUNK, start + length - offset))


@cache
def sha256_of(content: Content) -> str:
    """In hex. Remembered, so that a big Sparse is hashed once in a test session."""
    digest = hashlib.sha256()
    for piece in chunks(content, 0, content.size):
        digest.update(piece)
    return digest.hexdigest()


@cache
def git_blob_of(content: Content) -> str:
    """The name that git gives a file: sha1 over a header and the bytes, in hex."""
    digest = hashlib.sha1(f"blob {content.size}\0".encode(), usedforsecurity=False)
    for piece in chunks(content, 0, content.size):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class Lie:
    """What a source claims about a file, where that is not the truth; None claims the truth."""

    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class StoredFile:
    """One file of a repository, a model version or the mirror."""

    owner: str  # "org/name" or "org/team/model:version"; "" for the mirror
    path: str  # inside its owner, with "/"
    content: Content
    lfs: bool = False
    lie: Lie = Lie()

    @property
    def size(self) -> int:
        return self.content.size if self.lie.size is None else self.lie.size

    @cached_property
    def sha256(self) -> str:
        return self.lie.sha256 or sha256_of(self.content)

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of an LFS file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def blob_id(self) -> str:
        return git_blob_of(InMemory(self.pointer) if self.lfs else self.content)

    @cached_property
    def storage_etag(self) -> str:
        """An object store's own tag, which says nothing about the content's sha256."""
        name = f"{self.owner}/{self.path}/{self.blob_id}".encode()
        return f'"{hashlib.md5(name, usedforsecurity=False).hexdigest()}-1"'

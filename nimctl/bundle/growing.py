"""The files that one item grows in: appended to, cut into parts, hashed on the way, taken up again after a cut."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from nimctl.bundle.items import Item
from nimctl.bundle.model import Entry, Piece
from nimctl.core.fetch.digests import parse

_BLOCK = 4 * 2**20


class WrongBytes(Exception):  # noqa: N818 (it may be tried again)
    """The bytes are not those that were promised."""


class Growing:
    """The partial files of one item, hashed as they grow."""

    def __init__(self, item: Item, stem: Path, part: int | None) -> None:
        self._item, self._stem = item, stem
        self._part = part if part and item.size > part else None
        self._hasher = hashlib.sha256()
        self._also = parse(item.digest).hasher(item.size) if item.digest and item.digest[:7] != "sha256:" else None
        self._pieces: list[Piece] = []
        self._piece = hashlib.sha256()
        self._in_piece = 0
        self._out: BinaryIO | None = None
        self.done = 0

    def partial(self, number: int) -> Path:
        """The file that part `number` grows in."""
        return self._stem.with_name(f"{self._stem.name}.{number}")

    def resume(self) -> int:
        """Take in what an earlier run left, as far as it hangs together; bytes of it."""
        if self._item.token == "" or any(path.lstat().st_nlink > 1 for path in self._left()):
            self.discard()  # nobody knows of what it is the beginning, or it is a file of others as well
        number = 0
        while (path := self.partial(number)).exists() and path.stat().st_size:
            room = self._room()
            with open_plain(path, os.O_RDONLY) as content:
                left = min(room, path.stat().st_size)
                short = left < room
                if path.stat().st_size > left:
                    os.truncate(path, left)
                while left and (block := content.read(min(_BLOCK, left))):
                    left -= len(block)
                    self._take(block)
            if self._in_piece and (not short or self.done == self._item.size):
                self._close_piece()
            if short:
                break
            number += 1
        return self.done

    def write(self, chunk: bytes) -> None:
        """Append, over the ends of parts."""
        if self.done + len(chunk) > self._item.size:
            raise WrongBytes(f"it has more than {self._item.size} bytes")
        view = memoryview(chunk)
        while view:
            now = view[: self._room() - self._in_piece]
            if self._out is None:
                self._out = open_plain(self.partial(len(self._pieces)), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            self._out.write(now)
            self._take(now)
            view = view[len(now) :]
            if self._in_piece == self._room():
                self._close_piece()

    def finish(self) -> Entry:
        """The entry, once the bytes are whole and on the disk. Raises `WrongBytes`."""
        if self._item.size == 0 and not self._pieces:
            self.partial(0).touch()
        if self._in_piece or not self._pieces:
            self._close_piece()
        if self.done != self._item.size:
            raise WrongBytes(f"it has {self.done} bytes, not {self._item.size}")
        compare(self._item, self._hasher.hexdigest(), self._also)
        pieces = tuple(self._pieces)
        return Entry(self._item.path, self.done, self._hasher.hexdigest(), pieces if self._part else ())

    def close(self) -> None:
        """Let go of the open file."""
        if self._out is not None:
            self._out.close()
            self._out = None

    def discard(self) -> None:
        """Forget what was written."""
        self.close()
        for path in self._left():
            path.unlink()

    def _left(self) -> list[Path]:
        return list(self._stem.parent.glob(f"{self._stem.name}.*"))

    def _room(self) -> int:
        return self._part or max(self._item.size, 1)

    def _take(self, block: bytes | memoryview) -> None:
        self._hasher.update(block)
        if self._also:
            self._also.update(memoryview(block))
        if self._part:
            self._piece.update(block)
        self._in_piece += len(block)
        self.done += len(block)

    def _close_piece(self) -> None:
        number = len(self._pieces)
        handle = os.open(self.partial(number), os.O_RDWR)
        try:
            if self._out is not None:
                self._out.flush()
            os.fsync(handle)
        finally:
            os.close(handle)
        self.close()
        hexdigest = (self._piece if self._part else self._hasher).hexdigest()
        name = f"{self._item.path}.part{number + 1:03d}" if self._part else self._item.path
        self._pieces.append(Piece(name, self._in_piece, hexdigest))
        self._piece, self._in_piece = hashlib.sha256(), 0


def compare(item: Item, sha256: str, also: object) -> None:
    """Raises `WrongBytes` where a promised digest is another one."""
    if item.digest is None:
        return
    expected = parse(item.digest)
    found = sha256 if expected.algorithm == "sha256" else also.hexdigest()  # type: ignore[attr-defined]
    if found != expected.hex:
        raise WrongBytes(f"its {expected.algorithm} is {found}, not {expected.hex}")


def open_plain(path: Path, flags: int) -> BinaryIO:
    """The file itself, and not one that a link leads to. Raises OSError."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "rb" if flags == os.O_RDONLY else "ab")

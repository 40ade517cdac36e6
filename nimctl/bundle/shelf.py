"""Reading a bundle: the folder, or the folders where its parts were spread over several media.

Whoever made the folder is not trusted: links and devices are refused, names are checked before any is opened, and what
is read is bounded.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from nimctl.bundle import model
from nimctl.bundle.model import LARGEST, NAME, PARTIAL, SIGNATURE, SUMS, Bundle, Entry, Piece
from nimctl.bundle.problems import damaged, incomplete, invalid

_BLOCK = 4 * 2**20
_MOST_FOUND = 4 * model.MOST_FILES
_DEEPEST = 100  # folders in each other
# What filesystems and desktops leave in the root of a medium.
_OF_MEDIA = {"lost+found", "System Volume Information", "$RECYCLE.BIN", ".snapshot", ".Trashes", ".fseventsd",
             ".Spotlight-V100", ".DS_Store"}  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What lies in the folders beside what is read: `missing` and `extra` names, `wrong` as `name: why`."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    wrong: tuple[str, ...]


class Shelf:
    """One bundle in one or more folders; `bundle` is what its document says."""

    def __init__(self, roots: Sequence[Path]) -> None:
        """Raises `bundle-invalid`, `bundle-incomplete`, `bundle-damaged`."""
        self.roots = tuple(roots)
        self.document, self.root = self._document()
        self.bundle = self._parsed()

    @property
    def name(self) -> str:
        """The folders, for people."""
        return ", ".join(str(root) for root in self.roots)

    def place(self, path: str) -> Path:
        """Where the piece of that name lies: in the first folder that has it, else where it should be."""
        for root in self.roots:
            if os.path.lexists(root / path):
                return root / path
        return self.root / path

    def open(self, piece: Piece) -> BinaryIO:
        """The piece, opened through no link. Raises `bundle-incomplete`, `bundle-damaged`."""
        return self._open(piece.path, piece.size)

    def small(self, name: str, most: int = LARGEST) -> bytes:
        """The whole of one content file, checked. Raises `bundle-*`."""
        entry = self.bundle.entry(name)
        if entry.size > most:
            raise invalid(f"{name} has {entry.size} bytes", self.name)
        return b"".join(self.read(entry))

    def json(self, name: str, most: int = LARGEST) -> Any:
        """The document in one content file, checked. Raises `bundle-*`."""
        try:
            return json.loads(self.small(name, most))
        except (ValueError, RecursionError) as error:
            raise invalid(f"{name} is no document: {error}"[:600], self.name) from error

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """The content of `entry` from `offset`, over its parts.

        From the start it is hashed on its way, and `bundle-damaged` is raised before the last block is given out; from
        elsewhere the caller has to do that.
        """
        whole = hashlib.sha256()
        held: bytes | None = None
        for piece, start in _from(entry.pieces, offset):
            left = piece.size - start
            with self.open(piece) as content:
                content.seek(start)
                while left:
                    block = content.read(min(_BLOCK, left))
                    if not block:
                        raise damaged(self.name, [f"{piece.path}: it ends early"])
                    left -= len(block)
                    whole.update(block)
                    if held is not None:
                        yield held
                    held = block
        if not offset and whole.hexdigest() != entry.sha256:
            raise damaged(self.name, [f"{entry.path}: its SHA-256 is {whole.hexdigest()}, not {entry.sha256}"])
        if held is not None:
            yield held

    def sums(self) -> bytes:
        """What SHA256SUMS must hold, byte for byte. Raises `bundle-incomplete`."""
        others = [(NAME, hashlib.sha256(self.document).hexdigest())]
        if os.path.lexists(self.root / SIGNATURE):
            others.append((SIGNATURE, hashlib.sha256(self.beside(SIGNATURE)).hexdigest()))
        return model.sums(self.bundle.pieces, others)

    def beside(self, name: str) -> bytes:
        """A file beside the document that is not among its files. Raises `bundle-incomplete`, `bundle-damaged`."""
        with self._open(name, None) as content:
            data = content.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise damaged(self.name, [f"{name}: it is larger than {LARGEST} bytes"])
        return data

    def wrong_sums(self) -> list[str]:
        """`name: why` of SHA256SUMS, bundle.json or bundle.sig, where one of them was changed."""
        if not os.path.lexists(self.root / SUMS):
            return [f"{SUMS}: it is missing"]
        found, expected = self.beside(SUMS), self.sums()
        if found == expected:
            return []
        lines = dict.fromkeys(found.decode("utf-8", "replace").splitlines())
        wrong = [line for line in expected.decode().splitlines() if line not in lines]
        names = {line[66:] for line in wrong} & {NAME, SIGNATURE}
        if len(wrong) == 1 and names:  # the sums of everything else stand: it is the file that was changed
            return [f"{names.pop()}: its SHA-256 is not the one in {SUMS}"]
        return [f"{SUMS}: it does not list what {NAME} lists"]

    def survey(self) -> Survey:
        """Look at every name and size. Raises `bundle-invalid` for links and devices."""
        wanted = {piece.path: piece.size for piece in self.bundle.pieces}
        found: dict[str, int] = {}
        extra: list[str] = []
        for root in self.roots:
            for path, size in _walk(root, root):
                if path in wanted:
                    found.setdefault(path, size)
                elif path not in (NAME, SUMS, SIGNATURE):
                    extra.append(path)
                if len(found) + len(extra) > _MOST_FOUND:
                    raise invalid(f"it holds more than {_MOST_FOUND} files", self.name)
        missing = tuple(path for path in wanted if path not in found)
        wrong = tuple(
            f"{path}: it has {size} bytes, not {wanted[path]}" for path, size in found.items() if size != wanted[path]
        )
        return Survey(missing, tuple(sorted(extra)), wrong)

    def _document(self) -> tuple[bytes, Path]:
        for root in self.roots:
            if not root.is_dir():
                raise invalid("there is no such folder", str(root))
        for root in self.roots:
            if os.path.lexists(root / NAME):
                self.root = root
                with self._open(NAME, None) as content:
                    data = content.read(LARGEST + 1)
                if len(data) > LARGEST:
                    raise invalid(f"{NAME} is larger than {LARGEST} bytes", str(root))
                return data, root
        if any(os.path.lexists(root / PARTIAL) for root in self.roots):
            raise incomplete(self.name, "it was begun and never finished: there is no bundle.json yet")
        if any(os.path.lexists(root / SUMS) for root in self.roots):
            raise incomplete(self.name, f"{NAME} is missing, and {SUMS} is there", [NAME])
        raise invalid(f"there is no {NAME}", self.name)

    def _parsed(self) -> Bundle:
        try:
            return model.from_bytes(self.document)
        except Exception:
            # A document that was changed on its way is damage, whatever it says now.
            line = f"{hashlib.sha256(self.document).hexdigest()}  {NAME}\n".encode()
            if os.path.lexists(self.root / SUMS) and line not in self.beside(SUMS):
                raise damaged(self.name, [f"{NAME}: its SHA-256 is not the one in {SUMS}"]) from None
            raise

    def _open(self, path: str, size: int | None) -> BinaryIO:
        place = self.place(path)
        try:
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise incomplete(self.name, f"{path} is missing", [path]) from None
        except OSError as error:
            raise damaged(self.name, [f"{path}: it cannot be read ({error.strerror})"]) from None
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or (size is not None and found.st_size != size):
            os.close(handle)
            if not stat.S_ISREG(found.st_mode):
                raise invalid(f"{path} is no plain file", self.name)
            raise damaged(self.name, [f"{path}: it has {found.st_size} bytes, not {size}"])
        return os.fdopen(handle, "rb", buffering=0)


def _from(pieces: Sequence[Piece], offset: int) -> Iterator[tuple[Piece, int]]:
    """The pieces that hold what comes after `offset`, with the offset in each."""
    for piece in pieces:
        if offset < piece.size or (offset == 0 and piece.size == 0):
            yield piece, offset
        offset = max(0, offset - piece.size)


def _walk(folder: Path, root: Path, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Every file below `folder` with its size. Raises `bundle-invalid` for what is neither file nor folder."""
    if depth > _DEEPEST:
        raise invalid(f"it holds more than {_DEEPEST} folders in each other", str(root))
    with os.scandir(folder) as scan:
        entries = list(islice(scan, _MOST_FOUND + 1))
    for entry in entries:
        if folder == root and (entry.name in _OF_MEDIA or entry.name.startswith((".Trash-", "._"))):
            continue
        path = Path(entry.path).relative_to(root).as_posix()
        if entry.is_dir(follow_symlinks=False):
            if not (folder == root and entry.name == PARTIAL):
                yield from _walk(Path(entry.path), root, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield path, entry.stat(follow_symlinks=False).st_size
        else:
            raise invalid(f"{path} is a link or a device, which no bundle holds", str(root))

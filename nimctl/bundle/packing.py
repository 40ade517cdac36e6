"""Filling the folder of a bundle: every file hashed as it is written, named when it is whole, and noted then.

A cut anywhere costs nothing but what was in flight: a finished file is neither read nor fetched again, an unfinished
one goes on where it ended. `bundle.json` comes last.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nimctl.bundle.journal import Journal
from nimctl.bundle.model import MOST_FILES, Entry, Piece, require_distinct
from nimctl.bundle.problems import stopped
from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, Stop
from nimctl.core.fetch.digests import parse
from nimctl.core.fetch.laying import clone

_THREADS = 4  # connections to a registry; two hash while two wait
_BLOCK = 4 * 2**20
_LINKED_FROM = 64 * 2**20  # smaller ones are copied, so that who edits one does not reach the cache
_ALIGNED = 4096
_MARGIN = 16 * 2**20
_EVERY = 0.5  # seconds between two reports
_TRIES = 8  # attempts in a row without one new byte
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
_MAY_PASS = ("image-pull-failed", "image-rate-limited")


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


def part_size(split: int | None) -> int | None:
    """The size of a full part: below `split`, as FAT32 holds files of less than 4 GiB."""
    return (split - 1) // _ALIGNED * _ALIGNED if split else None


class Packer:
    """Brings items into the folder of a journal. `expected` bytes in all, for the progress."""

    def __init__(
        self,
        journal: Journal,
        expected: int,
        split: int | None,
        on_progress: Callable[[Progress], None],
        stop: Stop,
    ) -> None:
        self._journal, self._folder, self._private = journal, journal.folder, journal.private
        self._part, self._stop, self._on_progress = part_size(split), stop, on_progress
        self._lock = threading.Lock()
        self._total, self._done, self._retries = expected, 0, 0
        self._told = 0.0
        self._begun, self._before = time.monotonic(), 0
        self.entries: dict[str, Entry] = {}
        self.moved = 0  # bytes that were fetched or copied by this run

    def require_room(self, items: Sequence[Item], more: int = 0) -> None:
        """Refuse (`disk-full`), before the first byte, what will not fit; `more` bytes come as a stream."""
        require_distinct(item.path for item in items)
        if len(items) > MOST_FILES:
            raise ValueError(f"more than {MOST_FILES} files")
        there = sum(path.stat().st_blocks * 512 for path in self._folder.rglob("*") if path.is_file())
        needed = max(0, more - there) if more else 0
        for item in items:
            if not (self._journal.finished(item.path, self._token(item)) or self._is_linkable(item)):
                needed += item.size - self._begun_bytes(item)
        free = free_bytes(self._folder)
        if needed and needed + _MARGIN > free:
            raise NimctlError(
                "disk-full",
                f"{self._folder} has no room for the bundle",
                cause=f"{needed / 1e9:,.2f} GB more are needed and {free / 1e9:,.2f} GB are free",
                fix="Free space there, or name a folder on a larger disk. What is there already is kept.",
            )

    def pack(self, items: Sequence[Item]) -> None:
        """Bring all `items`, largest first, several at a time."""
        with ThreadPoolExecutor(_THREADS, "pack") as pool:
            running = [pool.submit(self.pack_one, item) for item in sorted(items, key=lambda item: -item.size)]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:
                self._stop.set()
                for waiting in running:
                    waiting.cancel()
                raise

    def pack_one(self, item: Item) -> Entry:
        """Bring one file, unless it is there."""
        entry = self._journal.finished(item.path, self._token(item)) if item.token else None
        if entry is not None:
            self._report(entry.size, before=True)
        else:
            entry = self._bring(item)
            with self._lock:
                self._journal.finish(self._token(item), entry)
        with self._lock:
            self.entries[item.path] = entry
        return entry

    def known(self, path: str, size: int, digest: str) -> Entry | None:
        """The file where it was finished already, which then belongs to the bundle."""
        entry = self._journal.finished(path, self._token(Item(path, size, lambda _: iter(()), digest)))
        if entry is not None:
            self.entries[path] = entry
            self._report(entry.size, before=True)
        return entry

    def _token(self, item: Item) -> str:
        """What was finished for another size of the parts has to be cut anew."""
        cut = f" {self._part}" if self._part and item.size > self._part else ""
        return item.token + cut

    def _bring(self, item: Item) -> Entry:
        linked = self._link(item)
        if linked is not None:
            return linked
        misses, last = 0, -1
        while True:
            writing = _Writing(item, self._private / hashlib.sha256(item.path.encode()).hexdigest()[:32], self._part)
            resumed = writing.resume()
            self._report(resumed, before=True)
            try:
                self._stream(item, writing)
                return self._name(item, writing)
            except _WrongBytes as wrong:
                writing.discard()
                self._report(-writing.done, before=True)
                if (
                    item.once or not resumed
                ):  # a partial file that survived a crash of the machine may hold anything; these came now
                    raise _not_as_promised(item, str(wrong)) from wrong
            except NimctlError as error:
                self._report(-writing.done, before=True)
                misses = misses + 1 if writing.done <= last else 1
                last = max(last, writing.done)
                if error.id == item.wrong:
                    writing.discard()
                if item.once or error.id not in _MAY_PASS or misses >= _TRIES or self._stop.pause(_PAUSES[misses - 1]):
                    raise
                self._retries += 1
            finally:
                writing.close()

    def _stream(self, item: Item, writing: "_Writing") -> None:
        for chunk in item.read(writing.done) if writing.done < item.size else ():
            writing.write(chunk)
            self._report(len(chunk))
            if self._stop.is_set:
                raise stopped("the bundle")
        if writing.done < item.size and item.origin is None:
            raise NimctlError(
                "image-pull-failed",
                f"{item.path.rpartition('/')[2]} ended early",
                cause=f"{writing.done} of {item.size} bytes came",
                fix="Run it again: it goes on where it ended.",
            )

    def _name(self, item: Item, writing: "_Writing") -> Entry:
        """Sync, compare, and give every part its name."""
        entry = writing.finish()
        for number, piece in enumerate(entry.pieces):
            place = self._folder / piece.path
            place.parent.mkdir(parents=True, exist_ok=True)
            writing.partial(number).replace(place)
            _sync_folder(place.parent)
        return entry

    def _link(self, item: Item) -> Entry | None:
        """The file as a clone of its origin, or another name for it; hashed all the same. None where it has to be
        copied."""
        if not self._is_linkable(item) or item.origin is None:
            return None
        fresh = self._private / hashlib.sha256(item.path.encode()).hexdigest()[:32]
        fresh.unlink(missing_ok=True)
        if not clone(item.origin, fresh):
            try:
                fresh.hardlink_to(item.origin)
            except OSError:  # of another user, or a mount in between
                return None
        whole, also = hashlib.sha256(), parse(item.digest).hasher(item.size) if item.digest else None
        for chunk in item.read(0):
            if self._stop.is_set:
                raise stopped("the bundle")
            whole.update(chunk)
            if also and not str(item.digest).startswith("sha256:"):
                also.update(memoryview(chunk))
            self._report(len(chunk), before=True)
        try:
            _compare(item, whole.hexdigest(), also)
        except _WrongBytes as wrong:
            fresh.unlink()
            raise _not_as_promised(item, str(wrong)) from wrong
        place = self._folder / item.path
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(place)
        _sync_folder(place.parent)
        return Entry(item.path, item.size, whole.hexdigest())

    def _is_linkable(self, item: Item) -> bool:
        if item.origin is None or item.size < _LINKED_FROM or (self._part and item.size > self._part):
            return False
        return item.origin.stat().st_dev == self._private.stat().st_dev

    def _begun_bytes(self, item: Item) -> int:
        stem = hashlib.sha256(item.path.encode()).hexdigest()[:32]
        return min(item.size, sum(path.stat().st_size for path in self._private.glob(f"{stem}.*")))

    def _report(self, count: int, *, before: bool = False, phase: str = "fetching") -> None:
        """Tell of `count` more bytes; those `before` this run took no time."""
        now = time.monotonic()
        with self._lock:
            self._done += count
            if before:
                self._before += count
            else:
                if not self.moved:  # what came before the first byte is the other side's time
                    self._begun = now
                self.moved += count
            if now - self._told < _EVERY:
                return
            self._told = now
            spent = now - self._begun
            rate = (self._done - self._before) / spent if spent > _EVERY and self._done > self._before else None
            left = max(0, self._total - self._done)
            self._on_progress(
                Progress(
                    min(self._done, self._total),
                    self._total,
                    rate=rate,
                    eta=left / rate if rate and left else None,
                    retries=self._retries,
                    phase=phase,  # type: ignore[arg-type]
                )
            )


class _WrongBytes(Exception):  # noqa: N818 (it may be tried again)
    """The bytes are not those that were promised."""


class _Writing:
    """The partial files of one item."""

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
        if self._item.token == "":
            self.discard()
        number = 0
        while (path := self.partial(number)).exists() and path.stat().st_size:
            room = self._room()
            with path.open("rb") as content:
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
            raise _WrongBytes(f"it has more than {self._item.size} bytes")
        view = memoryview(chunk)
        while view:
            now = view[: self._room() - self._in_piece]
            if self._out is None:
                self._out = self.partial(len(self._pieces)).open("ab")
            self._out.write(now)
            self._take(now)
            view = view[len(now) :]
            if self._in_piece == self._room():
                self._close_piece()

    def finish(self) -> Entry:
        """The entry, once the bytes are whole and on the disk. Raises `_WrongBytes`."""
        if self._item.size == 0 and not self._pieces:
            self.partial(0).touch()
        if self._in_piece or not self._pieces:
            self._close_piece()
        if self.done != self._item.size:
            raise _WrongBytes(f"it has {self.done} bytes, not {self._item.size}")
        _compare(self._item, self._hasher.hexdigest(), self._also)
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
        for path in self._stem.parent.glob(f"{self._stem.name}.*"):
            path.unlink()

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


def _compare(item: Item, sha256: str, also: object) -> None:
    """Raises `_WrongBytes` where a promised digest is another one."""
    if item.digest is None:
        return
    expected = parse(item.digest)
    found = sha256 if expected.algorithm == "sha256" else also.hexdigest()  # type: ignore[attr-defined]
    if found != expected.hex:
        raise _WrongBytes(f"its {expected.algorithm} is {found}, not {expected.hex}")


def _not_as_promised(item: Item, why: str) -> NimctlError:
    here = item.origin is not None or item.wrong != "image-tampered"
    return NimctlError(
        item.wrong,
        f"{item.path.rpartition('/')[2]} is not what was promised",
        cause=why,
        fix="Repair it where it lies (`nimctl cache verify --repair`), then run it again."
        if here
        else "Run it again; if it happens again, a proxy or the registry changes what it hands out.",
    )


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_whole(folder: Path, name: str, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    fresh = folder / f".{name}.fresh"
    with fresh.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(folder / name)
    _sync_folder(folder)


def remove_private(journal: Journal) -> None:
    """Take away what only an unfinished bundle needs."""
    shutil.rmtree(journal.private, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # FAT and some network mounts know no sync of folders
        pass
    finally:
        os.close(handle)

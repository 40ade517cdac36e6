"""Filling the folder of a bundle: every file hashed as it is written, named when it is whole, and noted then.

A cut anywhere costs nothing but what was in flight: a finished file is neither read nor fetched again, an unfinished
one goes on where it ended. `bundle.json` comes last.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from nimctl.bundle.durable import sync_folder
from nimctl.bundle.growing import Growing, WrongBytes, compare, open_plain
from nimctl.bundle.items import Item
from nimctl.bundle.journal import Journal
from nimctl.bundle.model import Entry
from nimctl.bundle.planning import is_linkable, part_size, require_room, stem_of, token_of
from nimctl.bundle.problems import stopped
from nimctl.bundle.tally import Tally
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, Stop
from nimctl.core.fetch.digests import parse
from nimctl.core.fetch.laying import clone

_BLOCK = 4 * 2**20
_THREADS = 4  # connections to a registry; two hash while two wait
_TRIES = 8  # attempts in a row without one new byte
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
_MAY_PASS = ("image-pull-failed", "image-rate-limited")


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
        self._journal, self._folder = journal, journal.folder
        self._part, self._stop = part_size(split), stop
        self._lock = threading.Lock()
        self._tally = Tally(expected, on_progress)
        self.entries: dict[str, Entry] = {}

    @property
    def moved(self) -> int:
        """Bytes that were fetched or copied by this run."""
        return self._tally.moved

    def require_room(self, items: Sequence[Item], more: int = 0) -> None:
        """Refuse (`disk-full`), before the first byte, what will not fit; `more` bytes come as a stream."""
        require_room(items, self._journal, self._part, more=more)

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
        entry = self._there(item) if item.token else None
        if entry is None:
            entry = self._bring(item)
            with self._lock:
                self._journal.finish(token_of(item, self._part), entry)
        with self._lock:
            self.entries[item.path] = entry
        return entry

    def known(self, path: str, size: int, digest: str) -> Entry | None:
        """The file where it was finished already, which then belongs to the bundle."""
        entry = self._there(Item(path, size, lambda _: iter(()), digest))
        if entry is not None:
            self.entries[path] = entry
        return entry

    def _there(self, item: Item) -> Entry | None:
        """The file where an earlier run finished it; of a bundle that was finished it is hashed again."""
        entry = self._journal.finished(item.path, token_of(item, self._part))
        if entry is None or (self._journal.is_of_before(item.path) and not self._is_whole(entry)):
            return None
        self._tally.there(entry.size)
        return entry

    def _is_whole(self, entry: Entry) -> bool:
        whole = hashlib.sha256()
        for piece in entry.pieces:
            with open_plain(self._folder / piece.path, os.O_RDONLY) as content:
                while block := content.read(_BLOCK):
                    whole.update(block)
                    if self._stop.is_set:
                        raise stopped("the bundle")
        return whole.hexdigest() == entry.sha256

    def _bring(self, item: Item) -> Entry:
        linked = self._link(item)
        if linked is not None:
            return linked
        misses, last = 0, -1
        while True:
            writing = Growing(item, stem_of(self._journal, item), self._part)
            resumed = writing.resume()
            self._tally.there(resumed)
            try:
                self._stream(item, writing)
                return self._name(item, writing)
            except WrongBytes as wrong:
                writing.discard()
                self._tally.there(-writing.done)
                # a partial file that survived a crash of the machine may hold anything; these came now
                if item.once or not resumed:
                    raise _not_as_promised(item, str(wrong)) from wrong
            except NimctlError as error:
                self._tally.there(-writing.done)
                misses = misses + 1 if writing.done <= last else 1
                last = max(last, writing.done)
                if error.id == item.wrong:
                    writing.discard()
                if item.once or error.id not in _MAY_PASS or misses >= _TRIES or self._stop.pause(_PAUSES[misses - 1]):
                    raise
                self._tally.retried()
            finally:
                writing.close()

    def _stream(self, item: Item, writing: Growing) -> None:
        for chunk in item.read(writing.done) if writing.done < item.size else ():
            writing.write(chunk)
            self._tally.moving(len(chunk))
            if self._stop.is_set:
                raise stopped("the bundle")
        if writing.done < item.size and item.origin is None:
            raise NimctlError(
                "image-pull-failed",
                f"{item.path.rpartition('/')[2]} ended early",
                cause=f"{writing.done} of {item.size} bytes came",
                fix="Run it again: it goes on where it ended.",
            )

    def _name(self, item: Item, writing: Growing) -> Entry:
        """Sync, compare, and give every part its name."""
        entry = writing.finish()
        for number, piece in enumerate(entry.pieces):
            place = self._folder / piece.path
            place.parent.mkdir(parents=True, exist_ok=True)
            writing.partial(number).replace(place)
            sync_folder(place.parent)
        return entry

    def _link(self, item: Item) -> Entry | None:
        """The file as a clone of its origin, or another name for it; hashed all the same. None where it has to be
        copied."""
        if not is_linkable(item, self._part, self._journal.private) or item.origin is None:
            return None
        fresh = stem_of(self._journal, item)
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
            self._tally.there(len(chunk))
        try:
            compare(item, whole.hexdigest(), also)
        except WrongBytes as wrong:
            fresh.unlink()
            raise _not_as_promised(item, str(wrong)) from wrong
        place = self._folder / item.path
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(place)
        sync_folder(place.parent)
        return Entry(item.path, item.size, whole.hexdigest())


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

"""One file on its way: its bytes so far, a journal of the blocks that are there, and its running hash.

    <key>.data       the bytes, full length from the start
    <key>.journal    what it is, then a line for each finished block

A process that is killed loses no block that its journal names, for the kernel still has it. After a crash of the
machine only what was synced counts: the journal says up to where, and in which boot its lines were written.
The hash runs over the blocks in order. A block that arrives when its turn has come is hashed while it is in memory;
others are read back from the disk by `catch_up`.
"""

import contextlib
import errno
import json
import os
import threading
from pathlib import Path

from nimctl.core.cache import open_shared
from nimctl.core.fetch import digests
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.transfer.blocks import BLOCK, BlockFile

SCHEMA = "nimctl.partial/1"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which run of the kernel this is: the same in every container of one running host."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


class Partial:
    """`file` on its way in `folder`. Methods may be called from several threads, `finish` from one."""

    def __init__(self, file: File, folder: Path) -> None:
        self.file = file
        self.data = folder / f"{file.key}.data"
        self.journal = folder / f"{file.key}.journal"
        self.count = -(-file.size // BLOCK)  # blocks
        self.done = bytearray(self.count)
        self.done_bytes = 0
        self.resumed = False  # whether bytes of an earlier process are in it
        self._content: BlockFile | None = None
        self._lines: int | None = None  # descriptor of the journal
        self._lock = threading.Lock()
        self._taken = bytearray(self.count)  # blocks that are being written, or are there
        self._sync_lock = threading.Lock()
        self._hash_lock = threading.Lock()
        self._hasher = self._new_hasher()
        self._hashed = 0  # blocks
        self._written = 0  # block lines in the journal

    def length_of(self, block: int) -> int:
        """Bytes of one block; the last may be short."""
        return min(BLOCK, self.file.size - block * BLOCK)

    @property
    def whole(self) -> bool:
        """Whether every block is there."""
        return self.done_bytes == self.file.size

    def load(self) -> None:
        """Take over what an earlier process left, reading the journal only.

        Of a file without digest only what is of the same version and was written in this boot: nobody would find a
        seam, or a page that was lost.
        """
        if self.file.digest is None and self.file.version is None:
            return
        blocks = _trusted_blocks(self.journal, self.file)
        with contextlib.suppress(OSError):
            present = self.data.stat().st_size
            for block in blocks:
                if block < self.count and block * BLOCK + self.length_of(block) <= present and not self.done[block]:
                    self.done[block] = self._taken[block] = 1
                    self.done_bytes += self.length_of(block)
        self.resumed = bool(self.done_bytes)

    def open(self) -> None:
        """Open the file and reserve its room; nothing if it is open. Raises OSError as the filesystem does."""
        with self._sync_lock:  # of several workers that begin on one file at once, one opens it
            if self._content is not None:
                return
            content = BlockFile(self.data, self.file.size)
            try:
                content.allocate()
                if self.done_bytes:
                    content.sync()
                self._open_journal()
            except BaseException:
                content.close()
                raise
            self._content = content

    def put(self, block: int, buffer: memoryview) -> None:
        """Write one whole block that lies at the start of `buffer`, journal it, and hash it if its turn has come.

        A block that is there already stays as it is: it may have been hashed. Raises FileNotFoundError where another
        process took the file over: by now it may be verified, and no longer ours to write.
        """
        assert self._content and self._lines is not None
        length = self.length_of(block)
        with self._lock:
            if self._taken[block]:  # two workers met where a piece was split
                return
            self._taken[block] = 1
        if not self._content.is_at(self.data):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.data))
        if self._hash_lock.acquire(blocking=False):
            try:
                if block == self._hashed:
                    self._hasher.update(buffer[:length])
                    self._hashed += 1
            finally:
                self._hash_lock.release()
        self._content.write(block * BLOCK, buffer, length)
        with self._lock:
            os.write(self._lines, b"b %d\n" % block)
            self._written += 1
            self.done[block] = 1
            self.done_bytes += length

    @property
    def lag(self) -> int:
        """Blocks from the hash's position on that are on the disk and could be hashed now, 0 or 1 and more."""
        turn = self._hashed  # once: another thread may hash the last block meanwhile
        return int(self._content is not None and turn < self.count and self.done[turn])

    def catch_up(self, buffer: memoryview, most: int | None, stop: Stop) -> None:
        """Hash blocks from the disk, as far as they are there without a gap, at most `most` of them.

        Does nothing once the file is closed: another thread may have sealed it meanwhile.
        """
        with self._hash_lock:
            if self._content is None:
                return
            first = self._hashed
            while self._hashed < self.count and self.done[self._hashed] and not stop.is_set:
                if most is not None and self._hashed - first >= most:
                    return
                length = self.length_of(self._hashed)
                self._content.read(self._hashed * BLOCK, buffer, length)
                self._hasher.update(buffer[:length])
                self._hashed += 1

    def sync(self) -> None:
        """Force the blocks so far to the disk, and say so in the journal."""
        with self._sync_lock:  # nobody closes it meanwhile; blocks may go on arriving
            if self._content is None or self._lines is None:
                return
            with self._lock:
                written = self._written
            self._content.sync()
            with self._lock:
                if self._written >= written:  # else it began anew
                    os.write(self._lines, b"sync %d\n" % written)
            os.fdatasync(self._lines)

    def finish(self, buffer: memoryview, stop: Stop) -> str | None:
        """Once every block is there: hash the rest and seal the file. The SHA-256 or expected digest, in hexadecimal.

        None where it is not what was expected: then nothing was sealed. Also None when stopped.
        """
        assert self._content
        self.catch_up(buffer, None, stop)
        if self._hashed < self.count:
            return None
        found = self._hasher.hexdigest()
        expected = self.file.expected
        if expected is not None and found != expected.hex:
            return None
        self._content.seal()
        return found

    def reset(self) -> None:
        """Forget every byte: the file starts anew."""
        with self._hash_lock, self._lock:
            self.done, self._taken = bytearray(self.count), bytearray(self.count)
            self.done_bytes = self._hashed = self._written = 0
            self.resumed = False
            self._hasher = self._new_hasher()
            if self._lines is not None:
                os.ftruncate(self._lines, 0)
                os.write(self._lines, self._header())

    def close(self) -> None:
        """Close the files and keep them."""
        with self._sync_lock, self._hash_lock, self._lock:
            if self._content is not None:
                self._content.close()
                self._content = None
            if self._lines is not None:
                os.close(self._lines)
                self._lines = None

    def remove(self) -> None:
        """Close and delete."""
        self.close()
        for path in (self.journal, self.data):
            path.unlink(missing_ok=True)

    def _new_hasher(self) -> digests.Hasher:
        expected = self.file.expected
        return expected.hasher(self.file.size) if expected else digests.sha256()

    def _header(self) -> bytes:
        head = {**_described(self.file), "path": self.file.path}
        return json.dumps(head).encode() + b"\n" + f"boot {boot_id()}\n".encode()

    def _open_journal(self) -> None:
        """Write the journal anew, without torn lines and those that are not trusted, and open it.

        It gets its name at once, so that a crash leaves the old or the new one. What it names is on the disk by now.
        """
        fresh = self.journal.with_suffix(".fresh")
        fresh.unlink(missing_ok=True)
        blocks = [block for block, there in enumerate(self.done) if there]
        lines = open_shared(fresh, os.O_WRONLY | os.O_APPEND)
        try:
            text = self._header() + b"".join(b"b %d\n" % block for block in blocks) + b"sync %d\n" % len(blocks)
            os.write(lines, text)
            os.fsync(lines)
            fresh.replace(self.journal)
        except BaseException:
            os.close(lines)
            raise
        self._lines = lines
        self._written = len(blocks)


def _described(file: File) -> dict[str, object]:
    """What a journal has to say of its file, to be one of it."""
    return {"schema": SCHEMA, "size": file.size, "digest": file.digest, "version": file.version, "block": BLOCK}


def _trusted_blocks(journal: Path, file: File) -> list[int]:
    """The blocks that `journal` vouches for, if it is one of `file`."""
    try:
        head, *lines = journal.read_bytes().split(b"\n")
        described = json.loads(head)
    except (OSError, ValueError):
        return []
    if not isinstance(described, dict) or lines == []:
        return []
    if any(described.get(name) != value for name, value in _described(file).items()):
        return []
    here = f"boot {boot_id()}".encode()
    blocks: list[int] = []
    synced = 0
    same_boot = False
    for line in lines[:-1]:  # what follows the last line's end was torn
        word, _, value = line.partition(b" ")
        if word == b"boot":
            same_boot = line == here
        elif value.isdigit():
            if word == b"b":
                blocks.append(int(value))
            elif word == b"sync":
                synced = int(value)
    if same_boot:
        return blocks
    return blocks[:synced] if file.digest else []

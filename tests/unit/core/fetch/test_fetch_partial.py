"""One file on its way: journal, resumption, hash; and many threads on it at once."""

import hashlib
import os
import random
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.retry import Stop
from nimctl.core.fetch.transfer import partial as module
from nimctl.core.fetch.transfer.blocks import BLOCK, BlockFile, aligned, new_buffer
from nimctl.core.fetch.transfer.partial import Partial
from tests.lib.checkpoints import sha256

SIZE = 3 * BLOCK + 12_345
CONTENT = random.Random(1).randbytes(SIZE)
FILE = File("model.safetensors", SIZE, sha256(CONTENT))


def put(partial: Partial, *blocks: int, content: bytes = CONTENT) -> None:
    buffer = new_buffer()
    for block in blocks:
        piece = content[block * BLOCK : (block + 1) * BLOCK]
        buffer[: len(piece)] = piece
        partial.put(block, buffer)


def opened(folder: Path, file: File = FILE) -> Partial:
    partial = Partial(file, folder)
    partial.load()
    partial.open()
    return partial


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_blocks_in_any_order_end_in_the_file_and_its_digest(tmp_path, order):
    partial = opened(tmp_path)
    put(partial, *order)
    assert partial.whole
    assert partial.finish(new_buffer(), Stop()) == FILE.key
    partial.close()
    assert partial.data.read_bytes() == CONTENT
    partial.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", [None, "git-sha1", "md5"])
def test_every_kind_of_digest_is_computed(tmp_path, digest):
    found = {
        None: hashlib.sha256(CONTENT),
        "git-sha1": hashlib.sha1(b"blob %d\0" % SIZE + CONTENT),
        "md5": hashlib.md5(CONTENT),
    }[digest].hexdigest()
    partial = opened(tmp_path, File("x", SIZE, f"{digest}:{found}" if digest else None))
    put(partial, 1, 0, 2, 3)
    assert partial.finish(new_buffer(), Stop()) == found
    partial.close()


def test_an_empty_file_is_whole_from_the_start(tmp_path):
    partial = opened(tmp_path, File("x", 0, sha256(b"")))
    assert partial.whole
    assert partial.finish(new_buffer(), Stop()) is not None
    partial.close()
    assert partial.data.stat().st_size == 0


def test_wrong_bytes_are_not_sealed_and_the_file_begins_anew(tmp_path):
    partial = opened(tmp_path)
    put(partial, 0, 1, 2, 3, content=b"\0" + CONTENT[1:])
    assert partial.finish(new_buffer(), Stop()) is None
    partial.reset()
    assert partial.done_bytes == 0
    put(partial, 3, 1, 0, 2)
    assert partial.finish(new_buffer(), Stop()) == FILE.key
    partial.close()


def test_a_block_that_was_hashed_is_never_written_over(tmp_path):
    """Two workers may meet where a piece was split; what the second brings may be wrong."""
    partial = opened(tmp_path)
    put(partial, 0, 1)
    put(partial, 0, 1, content=bytes(SIZE))
    put(partial, 2, 3)
    assert partial.finish(new_buffer(), Stop()) == FILE.key
    partial.close()
    assert partial.data.read_bytes() == CONTENT


def test_the_next_process_goes_on_with_what_the_journal_names(tmp_path):
    first = opened(tmp_path)
    put(first, 3, 0)
    first.close()
    second = opened(tmp_path)
    assert (bytes(second.done), second.done_bytes) == (b"\1\0\0\1", BLOCK + 12_345)
    put(second, 1, 2)
    assert second.finish(new_buffer(), Stop()) == FILE.key
    second.close()


def test_what_was_written_is_trusted_after_a_crash_of_the_machine_only_if_it_was_synced(tmp_path, monkeypatch):
    first = opened(tmp_path)
    put(first, 0, 1)
    first.sync()
    put(first, 2)
    first.close()
    monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    second = opened(tmp_path)
    assert bytes(second.done) == b"\1\1\0\0"
    second.close()
    monkeypatch.setattr(module, "boot_id", lambda: "a third boot")
    third = opened(tmp_path)
    assert bytes(third.done) == b"\1\1\0\0", "what was resumed was synced before its journal said so"
    third.close()


@pytest.mark.parametrize(
    "other",
    [File("x", SIZE + 1, FILE.digest), File("x", SIZE, "sha256:" + "0" * 64), File("x", SIZE, None)],
    ids=["size", "digest", "no digest"],
)
def test_a_journal_of_another_file_is_not_believed(tmp_path, other):
    first = opened(tmp_path)
    put(first, 0, 1)
    first.close()
    second = Partial(other, tmp_path)
    first.journal.rename(second.journal)
    first.data.rename(second.data)
    second.load()
    assert second.done_bytes == 0


def test_what_has_no_digest_is_not_resumed(tmp_path):
    file = File("x", SIZE)
    first = opened(tmp_path, file)
    put(first, 0, 1)
    first.close()
    second = Partial(file, tmp_path)
    second.load()
    assert second.done_bytes == 0


def test_blocks_beyond_the_end_of_the_data_are_not_believed(tmp_path):
    first = opened(tmp_path)
    put(first, 0, 1, 2, 3)
    first.close()
    os.truncate(first.data, 2 * BLOCK)
    second = Partial(FILE, tmp_path)
    second.load()
    assert bytes(second.done) == b"\1\1\0\0"


@given(
    st.lists(
        st.one_of(
            st.integers(-3, 9).map(lambda n: b"b %d\n" % n),
            st.integers(-3, 9).map(lambda n: b"sync %d\n" % n),
            st.sampled_from([b"boot x\n", b"b\n", b"b 1 2\n", b"b 1", b"\n", b"b \xb2\n", b"b 99999999999999999999\n"]),
            st.binary(max_size=20),
        ),
        max_size=12,
    ),
    st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_any_journal_is_read_without_an_error_and_names_no_block_that_is_not_there(lines, cut):
    with tempfile.TemporaryDirectory() as name:
        first = opened(Path(name))
        put(first, 1)
        first.close()
        text = first.journal.read_bytes() + b"".join(lines)
        first.journal.write_bytes(text[: max(0, len(text) - cut)])
        second = Partial(FILE, Path(name))
        second.load()
        assert len(second.done) == 4
        assert second.done_bytes == sum(second.length_of(n) for n in range(4) if second.done[n])


def test_many_threads_open_write_hash_and_sync_one_file_at_once(tmp_path):
    """The sum is right each time, and no thread fails."""
    count = 16
    content = random.Random(2).randbytes(count * BLOCK - 5)
    file = File("model.safetensors", len(content), sha256(content))
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        partial, errors, stop = Partial(file, folder), list[BaseException](), Stop()
        barrier = threading.Barrier(6)

        def guarded(action, barrier=barrier, errors=errors) -> threading.Thread:
            def run() -> None:
                try:
                    barrier.wait(20)
                    action()
                except BaseException as error:
                    errors.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def work(blocks, partial=partial) -> None:
            partial.open()
            put(partial, *blocks, content=content)

        def hash_on(partial=partial, stop=stop) -> None:
            buffer = new_buffer()
            while not (partial.whole or stop.is_set):
                if partial.lag:
                    partial.catch_up(buffer, 2, stop)
                partial.sync()

        order = random.Random(attempt).sample(range(count), count)
        workers = [guarded(lambda blocks=order[n::4]: work(blocks)) for n in range(4)]
        helpers = [guarded(hash_on) for _ in range(2)]
        for thread in workers:
            thread.join(60)
        if errors:
            stop.set()
        for thread in helpers:
            thread.join(60)
        assert errors == []
        assert partial.finish(new_buffer(), Stop()) == file.key
        partial.close()
        assert len(partial.journal.read_bytes().split(b"\nb ")) == count + 1, "each block is journalled once"
        partial.catch_up(new_buffer(), None, Stop())  # of a closed file: nothing happens
        partial.sync()
        partial.remove()


@pytest.mark.parametrize("size", [0, 1, 4095, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_block_file_has_its_size_only_when_it_is_sealed(tmp_path, size):
    content = random.Random(size).randbytes(size)
    file, buffer = BlockFile(tmp_path / "x", size), new_buffer()
    file.allocate()
    for offset in range(0, size, BLOCK):
        piece = content[offset : offset + BLOCK]
        buffer[: len(piece)] = piece
        file.write(offset, buffer, len(piece))
        buffer[: len(piece)] = bytes(len(piece))
        file.read(offset, buffer, len(piece))
        assert bytes(buffer[: len(piece)]) == piece
    file.sync()
    assert (tmp_path / "x").stat().st_size in (size, aligned(size))
    file.seal()
    file.close()
    assert (tmp_path / "x").read_bytes() == content

"""Fault: a fetch is killed or stopped in the middle, or the machine crashes. What was fetched is not fetched again."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.fault_hub import UNREAD, FaultHub, Ledger, Slow, Sparse, Stall
from tests.lib.fetcher import QUICK, Fetchers
from tests.lib.web_checkpoints import Served, serve

SHARDS = {f"model-{n:05d}-of-00004.safetensors": Sparse(9 * BLOCK + 77 * n, n) for n in range(1, 5)}
FILES = {"config.json": b"{}", **SHARDS}
WEIGHTS = "*.safetensors"


@pytest.fixture
def served(hub) -> Served:
    return serve(hub, FILES)


@pytest.fixture
def cache(folder) -> Path:
    return folder / "cache"


def sent(count: float):
    return lambda ledger: ledger.bytes_sent(WEIGHTS) >= count


def in_work(ledger: Ledger) -> int:
    """Connections that carry a range of weights at this moment."""
    return sum(entry.sent > 0 and not entry.done for entry in ledger.requests(WEIGHTS, role="content"))


def test_killed_at_a_quarter_a_half_and_three_quarters(hub, served, fetchers, cache):
    hub.fail(WEIGHTS, Slow(12 * 2**20))
    connections = 0
    for part in (0.25, 0.5, 0.75):
        child = fetchers.start(cache, served.wanted)
        hub.wait_for(sent(part * served.size))
        connections += in_work(hub.ledger)
        child.kill()
        assert child.wait().code == -signal.SIGKILL
    hub.heal()
    last = fetchers.run(cache, served.wanted)
    assert last.code == 0, last
    assert served.faults_of(cache) == []
    twice = fetched_twice(hub)
    sys.stdout.write(f"killed 3 times: {twice / 2**20:.1f} MiB twice over {connections} connections\n")
    assert twice <= connections * (BLOCK + UNREAD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("after", [-1, 0, 5 * 2**20], ids=["before the headers", "after them", "in the body"])
def test_ended_while_the_server_says_nothing(hub, served, fetchers, cache, number, after):
    """Nothing but the end of the process frees these connections: the server goes on only when the fetch is over."""
    hub.fail(WEIGHTS, Stall(after))
    child = fetchers.start(cache, served.wanted)
    hub.wait_for_stalls(4)
    begun = time.monotonic()
    child.kill(number)
    ended = child.wait(20)
    sys.stdout.write(f"{signal.Signals(number).name} took {time.monotonic() - begun:.2f} s\n")
    if number == signal.SIGTERM:
        assert ended.error_id == "interrupted", ended
    hub.heal()
    assert fetchers.run(cache, served.wanted).code == 0
    assert served.faults_of(cache) == []
    assert fetched_twice(hub) <= 8 * (BLOCK + UNREAD)


def test_slow_connections_are_not_taken_for_stalled(hub, fetchers, cache):
    """A block of the slow file takes twice as long as a stall, while the other brings one after the other: whoever
    looks at whole blocks gives up connections that bring bytes, and begins in the middle of a block."""
    slow, steady = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    served = serve(hub, {slow: Sparse(BLOCK + 77, 1), steady: Sparse(24 * BLOCK, 2)})
    hub.fail(slow, Slow(BLOCK / 3))
    hub.fail(steady, Slow(2 * BLOCK))
    ended = fetchers.run(cache, served.wanted, settings={**QUICK, "transfer.run._STALLED": 1.5})
    assert ended.code == 0, ended
    starts = [(entry.path, int(str(entry.asked).partition("=")[2].partition("-")[0])) for entry in hub.requests()]
    assert len(starts) == len(set(starts)), "no range was begun twice"
    assert [start for _, start in starts if start % BLOCK] == [], "no range was begun in the middle of a block"


def journals(served: Served, cache: Path) -> list[Path]:
    return sorted(served.repo(cache).partial.glob("w-*/*.journal"))


def synced(journal: Path) -> tuple[list[int], list[int]]:
    """The blocks that the journal says are on the disk, and those that it only says were written."""
    blocks: list[int] = []
    count = 0
    try:
        lines = journal.read_text().splitlines()[1:]
    except FileNotFoundError:  # its folder was claimed in this moment, and has another name
        return [], []
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "b":
            blocks.append(int(value))
        elif word == "sync":
            count = int(value)
    return blocks[:count], blocks[count:]


def in_journals(served: Served, cache: Path) -> tuple[int, int]:
    """Blocks that are on the disk as the journals say, and those that are not yet."""
    both = [synced(journal) for journal in journals(served, cache)]
    return sum(len(on_disk) for on_disk, _ in both), sum(len(in_memory) for _, in_memory in both)


def after_two_kills(hub: FaultHub, served: Served, fetchers: Fetchers, cache: Path) -> None:
    """Some of the weights are there; what the first fetch left was forced to the disk, what the second brought not."""
    for what, seconds in ((0, 0.1), (1, 3600.0)):
        hub.fail(WEIGHTS, Stall(BLOCK + BLOCK // 2))  # nothing comes to an end, however late this process looks
        child = fetchers.start(cache, served.wanted, settings={**QUICK, "transfer.run._SYNC": seconds})
        deadline = time.monotonic() + 30
        while not in_journals(served, cache)[what] and time.monotonic() < deadline:
            assert child.runs(), child.wait()
            time.sleep(0.01)
        child.kill()
        assert child.wait().code == -signal.SIGKILL
        hub.heal()


def lose(journal: Path, blocks: list[int]) -> None:
    """The disk has zeros in place of these blocks, as after a crash that came before they were written back."""
    with journal.with_suffix(".data").open("r+b") as data:
        for block in blocks:
            data.seek(block * BLOCK)
            data.write(bytes(BLOCK))


def name_of(journal: Path) -> str:
    """The file that a journal is of."""
    return Path(json.loads(journal.read_text().partition("\n")[0])["path"]).name


def covers(asked: object, block: int) -> bool:
    """Whether a range such as `bytes=0-99` begins before the end of the block and ends after its start."""
    first, _, last = str(asked).partition("=")[2].partition("-")
    return int(first) < (block + 1) * BLOCK and int(last) >= block * BLOCK


def test_after_a_crash_of_the_machine_only_what_was_synced_counts(hub, served, fetchers, cache, tmp_path):
    """Another boot: the pages that were not synced are gone, and nobody has to read a block to know it."""
    after_two_kills(hub, served, fetchers, cache)
    kept, lost = in_journals(served, cache)
    assert kept, "nothing was synced: this shows nothing"
    assert lost, "all was synced: this shows nothing"
    there = {(name_of(journal), block) for journal in journals(served, cache) for block in synced(journal)[0]}
    for journal in journals(served, cache):
        lose(journal, synced(journal)[1])
    other_boot = tmp_path / "boot_id"
    other_boot.write_text("5f3c0000-0000-4000-8000-000000000000\n")
    before = hub.ledger.mark()
    again = fetchers.run(cache, served.wanted, settings={**QUICK, "transfer.partial._BOOT_ID": str(other_boot)})
    assert again.code == 0, again
    assert served.faults_of(cache) == []
    # what was asked for, not what was sent: the server also sends what a connection that is given up never reads
    asked = [(Path(entry.path).name, entry.asked) for entry in hub.requests(WEIGHTS, since=before)]
    assert asked
    assert [
        (name, block) for name, block in there if any(covers(range_, block) for n, range_ in asked if n == name)
    ] == []


@pytest.mark.parametrize("damage", ["synced block lost", "file empty", "file gone", "journal zeros", "journal torn"])
def test_what_a_crash_left_is_never_taken_for_content(hub, served, fetchers, cache, damage):
    """The same boot id, so that every line of the journal is believed, and the disk does not hold what it says."""
    after_two_kills(hub, served, fetchers, cache)
    left = journals(served, cache)
    assert left
    for journal in left:
        data = journal.with_suffix(".data")
        if damage == "synced block lost":
            lose(journal, [*synced(journal)[0], *synced(journal)[1]])
        elif damage == "file empty":
            os.truncate(data, 0)
        elif damage == "file gone":
            data.unlink()
        elif damage == "journal zeros":
            journal.write_bytes(bytes(journal.stat().st_size))
        else:
            journal.write_bytes(journal.read_bytes()[:-1])
    again = fetchers.run(cache, served.wanted)
    assert again.code == 0, again
    assert served.faults_of(cache) == []


def fetched_twice(hub: FaultHub) -> int:
    return hub.bytes_sent(WEIGHTS) - sum(shard.size for shard in SHARDS.values())

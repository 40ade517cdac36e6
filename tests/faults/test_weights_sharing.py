"""Fault: many processes fetch into one cache, and some of them die, stand still, or have locks that mean nothing."""

import signal
import sys
from pathlib import Path

import pytest

from nimctl.core import cache as cache_folder
from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.fault_hub import UNREAD, FaultHub, Slow, Sparse
from tests.lib.fetcher import QUICK, Child
from tests.lib.users import needs_root
from tests.lib.web_checkpoints import Served, serve

SHARDS = {f"model-{n:05d}-of-00003.safetensors": Sparse(5 * BLOCK + 77 * n, n) for n in range(1, 4)}
FILES = {"config.json": b"{}", **SHARDS}
WEIGHTS = "*.safetensors"
ONCE = sum(shard.size for shard in SHARDS.values())
ALL = 8


@pytest.fixture
def served(hub) -> Served:
    return serve(hub, FILES)


@pytest.fixture
def cache(folder) -> Path:
    """Where every user may go."""
    folder.chmod(0o755)
    cache_folder.apply_init(folder / "cache")
    return folder / "cache"


def ended_well(served: Served, cache: Path, children: list[Child]) -> None:
    for child in children:
        ended = child.wait()
        assert ended.code == 0, ended
    assert served.faults_of(cache) == []


def in_work(hub: FaultHub) -> int:
    return sum(entry.sent > 0 and not entry.done for entry in hub.requests(WEIGHTS, role="content"))


def tell(what: str, hub: FaultHub) -> None:
    sys.stdout.write(f"{what}: {hub.bytes_sent(WEIGHTS) / ONCE:.3f} times the bytes\n")


def test_with_real_locks_every_byte_is_fetched_once(hub, served, fetchers, cache):
    ended_well(served, cache, [fetchers.start(cache, served.wanted) for _ in range(ALL)])
    tell("8 processes, real locks", hub)
    assert hub.bytes_sent(WEIGHTS) == ONCE


def test_one_of_them_is_killed_in_the_middle(hub, served, fetchers, cache):
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    first = fetchers.start(cache, served.wanted)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) > 0)
    others = [fetchers.start(cache, served.wanted) for _ in range(ALL - 1)]
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= ONCE / 2)
    connections = in_work(hub)
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    hub.heal()
    ended_well(served, cache, others)
    tell(f"8 processes, one killed with {connections} connections", hub)
    assert hub.bytes_sent(WEIGHTS) - ONCE <= connections * (BLOCK + UNREAD)


def test_where_locks_mean_nothing_all_end_right(hub, served, fetchers, cache):
    ended_well(served, cache, [fetchers.start(cache, served.wanted, locks=False) for _ in range(ALL)])
    tell("8 processes, locks that do nothing", hub)  # how often is left open: locks are what saves the bytes


def test_where_locks_mean_nothing_and_one_is_killed(hub, served, fetchers, cache):
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    first = fetchers.start(cache, served.wanted, locks=False)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) > ONCE / 2)
    connections = in_work(hub)
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    hub.heal()
    ended_well(served, cache, [fetchers.start(cache, served.wanted, locks=False)])
    tell("locks that do nothing, one killed and one after it", hub)
    assert hub.bytes_sent(WEIGHTS) - ONCE <= connections * (BLOCK + UNREAD), "the dead one's blocks are used"


@pytest.mark.parametrize("locks", [True, False], ids=["real locks", "no locks"])
def test_one_that_stood_still_wakes_up_when_another_took_its_place(hub, served, fetchers, cache, locks):
    """It may neither break what the other made nor fail itself."""
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    settings = {**QUICK, "writers._HUNG": 2.0}
    sleeper = fetchers.start(cache, served.wanted, locks=locks, settings=settings)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= ONCE / 2)
    sleeper.kill(signal.SIGSTOP)
    hub.heal()
    other = fetchers.run(cache, served.wanted, locks=locks, settings=settings)
    assert other.code == 0, other
    assert served.is_marked(cache)
    sleeper.kill(signal.SIGCONT)
    ended_well(served, cache, [sleeper])
    tell("one that stood still", hub)


def test_one_is_taken_for_dead_in_the_middle_of_its_work(hub, served, fetchers, cache):
    """Its heart is too slow to be seen, and it learns late that its files were taken from it: it goes on writing."""
    hub.fail(WEIGHTS, Slow(4 * 2**20))
    slow_heart = {**QUICK, "writers.BEAT": 30.0}
    first = fetchers.start(cache, served.wanted, locks=False, settings=slow_heart)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= ONCE / 4)
    second = fetchers.start(cache, served.wanted, locks=False)
    ended_well(served, cache, [first, second])
    tell("one that was taken for dead", hub)


@pytest.mark.parametrize("locks", [True, False], ids=["real locks", "no locks"])
def test_all_stand_still_and_wake_up_in_turns(hub, served, fetchers, cache, locks):
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    settings = {**QUICK, "writers._HUNG": 0.5, "writers._STILL": 0.4}
    first = fetchers.start(cache, served.wanted, locks=locks, settings=settings)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= ONCE / 4)
    first.kill(signal.SIGSTOP)
    mark = hub.bytes_sent(WEIGHTS)
    second = fetchers.start(cache, served.wanted, locks=locks, settings=settings)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= mark + ONCE / 4)
    first.kill(signal.SIGCONT)  # both work now, one of them on files that were taken from it
    second.kill(signal.SIGSTOP)
    third = fetchers.start(cache, served.wanted, locks=locks, settings=settings)
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= mark + ONCE / 2)
    second.kill(signal.SIGCONT)
    ended_well(served, cache, [first, second, third])
    tell("three that stood still in turns", hub)


@pytest.mark.parametrize("counting", [True, False], ids=["its heart beats", "its heart stands still"])
def test_a_writer_of_another_host(hub, served, fetchers, cache, tmp_path, counting):
    """Its boot id is another, and this host's locks say nothing of it: only the counter does."""
    boot = tmp_path / "boot_id"
    boot.write_text("5f3c0000-0000-4000-8000-000000000000\n")
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    there = fetchers.start(
        cache, served.wanted, locks=False, settings={**QUICK, "transfer.partial._BOOT_ID": str(boot)}
    )
    hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) >= ONCE / 2)
    if counting:
        here = fetchers.start(cache, served.wanted, locks=False)
        ended_well(served, cache, [there, here])
        tell("beside a writer of another host", hub)
        return
    there.kill()
    there.wait()
    hub.heal()
    ended_well(served, cache, [fetchers.start(cache, served.wanted)])
    tell("after a writer of another host", hub)


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_any_uid_of_group_0_goes_on_with_what_another_left(hub, served, fetchers, cache, umask):
    """Killed at the half, gone on with by another user to three quarters, ended by a third and used by a fourth."""
    hub.fail(WEIGHTS, Slow(8 * 2**20))
    connections = 0
    for uid, part in ((12345, 0.5), (54321, 0.75)):
        child = fetchers.start(cache, served.wanted, uid=uid, umask=umask)
        hub.wait_for(lambda ledger, part=part: ledger.bytes_sent(WEIGHTS) >= part * ONCE)
        connections += in_work(hub)
        child.kill()
        assert child.wait().code == -signal.SIGKILL
    hub.heal()
    assert fetchers.run(cache, served.wanted, uid=999, umask=umask).code == 0
    assert served.faults_of(cache) == []
    assert hub.bytes_sent(WEIGHTS) - ONCE <= connections * (BLOCK + UNREAD)
    mark = hub.ledger.mark()
    assert fetchers.run(cache, served.wanted, uid=4242, umask=umask).code == 0
    assert hub.requests(since=mark) == []
    assert {path.lstat().st_gid for path in cache.rglob("*")} == {0}
    assert cache_folder.plan_init(cache) == [], "what a fetch makes needs no repair"

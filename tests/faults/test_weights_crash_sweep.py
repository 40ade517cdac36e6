"""Fault: the fetching process is killed at each single call that changes the cache.

After every kill the cache must promise nothing false, and a second run must end with the right content and nothing left
behind. A run of the tests takes some points of every kind; NIMCTL_FULL_SWEEP=1 takes them all (minutes), and prints
how many there were.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.fault_hub import FaultHub, Sparse
from tests.lib.fetcher import KINDS, Fetchers, Kill
from tests.lib.web_checkpoints import Served, false_promises, serve

FULL = os.environ.get("NIMCTL_FULL_SWEEP") == "1"
MOST = 500  # calls of one kind; a run makes about forty
TRIES = 6  # to meet the last call of a kind, whose number differs from run to run
FILES = {
    "config.json": b"{}",
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": Sparse(9 * 2**20 + 5, 1),
    "model-00002-of-00002.safetensors": Sparse(5000, 2),
    "sub/tokenizer.json": b'{"a": 1}',
    "unknown.json": b'{"digest": null}',
}


@pytest.fixture(scope="module")
def hub():
    with FaultHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def served(hub):
    return serve(hub, FILES, undigested=("unknown.json",))


def points(count: int, samples: int) -> Iterator[int]:
    """Which calls of a kind are tried: some of the `count` that a clean run made; or all, and on beyond them."""
    if FULL:
        return iter(range(1, MOST))
    return iter(sorted({1 + round(n * (count - 1) / (samples - 1)) for n in range(samples)}) if count else ())


def sweep(
    fetchers: Fetchers,
    served: Served,
    folder: Path,
    kind: str,
    *,
    samples: int,
    begun: Path | None = None,
    torn: bool = False,
) -> int:
    """Kill at `samples` calls of `kind`, beginning with a copy of `begun`; how many kills there were."""
    cache, kills = folder / "cache", 0

    def begin() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        if begun is not None:
            shutil.copytree(begun, cache, symlinks=True)

    begin()
    dry = fetchers.run(cache, served.wanted)
    assert dry.code == 0, dry
    assert served.faults_of(cache) == []
    for point in points(count := dry.counts[kind], samples):
        at = point
        # Threads and the clock make the number of calls differ: a run that misses the point tells its last call.
        for _ in range(TRIES):
            begin()
            first = fetchers.run(cache, served.wanted, kill=Kill(kind, at, torn))
            if first.code != 0:
                break
            assert first.counts[kind] < at, f"nobody was killed at {kind} {at}"
            at = first.counts[kind]
            if point > count or at == 0:
                break
        if point > count and first.code == 0:
            break
        assert first.code == -signal.SIGKILL, first
        kills += 1
        assert false_promises(served.repo(cache)) == [], f"after a kill at {kind} {at}"
        second = fetchers.run(cache, served.wanted)
        assert second.code == 0, (kind, at, second)
        assert served.faults_of(cache) == [], f"recovered from a kill at {kind} {at}"
    else:
        assert not FULL, "the sweep did not come to an end"
    assert kills >= (count if FULL else min(count, samples))
    return kills


@pytest.mark.timeout(1800 if FULL else 300)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_a_fresh_cache(fetchers, served, folder, kind):
    kills = sweep(fetchers, served, folder, kind, samples=3)
    sys.stdout.write(f"{kind}: {kills} kills in a fresh cache\n")
    assert kills or kind == "rmdir"


@pytest.mark.timeout(1800 if FULL else 300)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_it_goes_on_with_what_a_killed_one_left(fetchers, served, folder, kind):
    """The folder of the dead is claimed, its journals are read, its blocks are hashed."""
    begun = folder / "begun"
    partial = served.repo(begun).partial
    for hidden in ("hidden", "w-other"):  # of two dead, one's folder is renamed, the other's files are moved over
        died = fetchers.run(begun, served.wanted, kill=Kill("write", 14))
        assert died.code == -signal.SIGKILL
        next(partial.glob("w-*")).rename(partial / hidden)
    (partial / "hidden").rename(partial / "w-one")
    kills = sweep(fetchers, served, folder, kind, samples=2, begun=begun)
    sys.stdout.write(f"{kind}: {kills} kills while going on\n")
    assert kills or kind in ("mkdir", "rmdir", "chmod")


@pytest.mark.timeout(1800 if FULL else 300)
def test_killed_in_the_middle_of_a_write(fetchers, served, folder):
    kills = sweep(fetchers, served, folder, "write", samples=3, torn=True)
    sys.stdout.write(f"write: {kills} torn writes\n")
    assert kills


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_again_and_again(fetchers, served, folder, seed):
    """Each run goes on with what all that were killed before it left."""
    chance = random.Random(seed)
    cache, kills = folder / "cache", 0
    for _ in range(10):
        kill = Kill(chance.choice(("create", "write", "rename", "unlink")), chance.randint(3, 12), torn=True)
        ended = fetchers.run(cache, served.wanted, kill=kill)
        assert ended.code in (0, -signal.SIGKILL), ended
        assert false_promises(served.repo(cache)) == []
        kills += ended.code != 0
    assert kills, "it must have been killed to show anything"
    assert fetchers.run(cache, served.wanted).code == 0
    assert served.faults_of(cache) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_calls_that_are_counted_are_all_calls_there_are(fetchers, served, folder, tmp_path):
    """What the sweep cannot see it cannot kill at: strace, from outside, sees no other call that changes the cache."""
    trace = tmp_path / "trace"
    names = "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,symlink,"
    names += "symlinkat,link,linkat,unlink,unlinkat,truncate,ftruncate,fallocate,mkdir,mkdirat,rmdir,chmod,fchmod,"
    names += "fchmodat,open,openat,creat,copy_file_range,sendfile"
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-e", f"trace={names}", "-o", str(trace), "-p", str(fetchers.pid)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert tracer.stderr
        if "attached" not in (said := tracer.stderr.readline()):
            pytest.skip(f"strace cannot attach here: {said.strip()}")
        done = fetchers.run(folder / "cache", served.wanted)
    finally:
        tracer.terminate()
        tracer.communicate(timeout=30)
    assert done.code == 0
    lines = [line for line in trace.read_text().splitlines() if f"{folder}/cache" in line]
    seen = [line for line in lines if "open" not in line.split("(")[0] or "O_CREAT" in line]
    seen = [line for line in seen if "resumed>" not in line]
    assert len(seen) == sum(done.counts.values())

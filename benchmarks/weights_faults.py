"""What a misbehaving server costs: the right files or the right error, and little time.

Twelve misbehaviours, each with checkpoints of 32 files of 256 KiB, 2 MiB and 8 MiB from the tests' fault hub. The hub
sends so slowly for each connection that a download without faults takes about 12 s on eight: a pause of a second is
to be seen as what it is in a real download, not as a multiple of it. The first file is the one that is spoilt. Four
downloads run at a time, one of them without fault, which the other three are compared to. Bars: the right result or
error every time, and at most 1.3x the time of the fault-free one where a download recovers (median).

    scripts/bench weights_faults [--times 3]
"""

import argparse
import hashlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks._weights_origin import REPO
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, fetch
from tests.lib.fault_hub import (
    Cut,
    Fault,
    FaultHub,
    FlipBit,
    Garbage,
    IgnoreRange,
    Reset,
    ShortRange,
    Slow,
    Sparse,
    Stall,
    Status,
    Truncate,
    WrongBytes,
    WrongContentRange,
)

FILES = 32
SIZES = (256 * 2**10, 2 * 2**20, 8 * 2**20)
FAULT_FREE_S = 12.0
CONNECTIONS = 8
BAR = 1.3
TOGETHER = 4


@dataclass(frozen=True)
class Case:
    """One misbehaviour: `times` (None: for ever), and the id of the error where no download can succeed."""

    name: str
    fault: Fault | None
    times: int | None = 2
    error: str | None = None


def cases(size: int) -> list[Case]:
    """All of them for files of `size` bytes."""
    half = size // 2
    return [
        Case("cut in the middle", Cut(half)),
        Case("reset before the headers", Reset()),
        Case("reset in the middle", Reset(half)),
        Case("silence in the middle", Stall(half), times=1),
        Case("a body shorter than announced", Truncate(half, lying=True)),
        Case("a shorter range than asked for", ShortRange(half)),
        Case("another range than asked for", WrongContentRange(by=1), times=2),
        Case("ranges ignored", IgnoreRange(), times=None),
        Case("too many requests", Status(429, retry_after=1)),
        Case("no HTTP", Garbage()),
        Case("one bit turned over, once", FlipBit(half), times=1),
        Case("wrong bytes, always", WrongBytes(), times=None, error="weights-corrupt"),
    ]


def download(size: int, case: Case) -> tuple[float, str | None]:
    """Seconds, and what is wrong with the result (None: nothing)."""
    files = {f"model-{n + 1:05}-of-{FILES:05}.safetensors": Sparse(size, seed=n) for n in range(FILES)}
    spoilt = next(iter(files))
    pace = Slow(FILES * size / CONNECTIONS / FAULT_FREE_S)
    with FaultHub() as hub, tempfile.TemporaryDirectory(prefix="nimctl-bench-") as name:
        hub.add_repo(REPO, {"config.json": b"{}", **files})
        if case.fault is not None:
            hub.fail(spoilt, case.fault, pace, times=case.times, listener="cdn")
        hub.fail("*.safetensors", pace, listener="cdn")
        found: str | None = None
        begin = time.perf_counter()
        try:
            folder = fetch(f"hf://{REPO}", Path(name), access=Access(hf_endpoint=hub.url))
        except NimctlError as error:
            found = error.id
        seconds = time.perf_counter() - begin
        if case.fault is not None and not any(
            entry.faults for entry in hub.requests(spoilt) if case.fault in entry.faults
        ):
            return seconds, "the fault was never met"
        if found != case.error:
            return seconds, f"ended with {found}, not with {case.error}"
        if found is None:
            for path, content in files.items():
                right = hashlib.sha256(content.read(0, size)).digest()
                if hashlib.sha256((folder / path).read_bytes()).digest() != right:
                    return seconds, f"{path} has wrong bytes"
    return seconds, None


def batch(size: int, members: list[Case]) -> list[tuple[float, str | None]]:
    """The downloads of `members`, each in a process of its own, at the same time."""
    with multiprocessing.get_context("spawn").Pool(len(members)) as pool:
        return pool.starmap(download, [(size, case) for case in members], chunksize=1)


def main() -> int:
    """Measure; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    calm = Case("no fault", None)
    ratios: dict[tuple[str, int], list[float]] = {}
    wrong: list[str] = []
    for size in SIZES:
        members = cases(size)
        for _ in range(times):
            for first in range(0, len(members), TOGETHER - 1):
                chosen = members[first : first + TOGETHER - 1]
                (base, trouble), *others = batch(size, [calm, *chosen])
                wrong += [f"no fault, {size}: {trouble}"] if trouble else []
                for case, (seconds, trouble) in zip(chosen, others, strict=True):
                    wrong += [f"{case.name}, {size}: {trouble}"] if trouble else []
                    if case.error is None:
                        ratios.setdefault((case.name, size), []).append(seconds / base)
                print(
                    f"{size} bytes: {', '.join(case.name for case in chosen)}: fault-free {base:.1f} s", file=sys.stderr
                )
    met = not wrong
    for (name, size), values in ratios.items():
        median = statistics.median(values)
        good = median <= BAR
        met = met and good
        print(
            f"{name}, {FILES} files of {size / 2**20:g} MiB: {median:.2f}x (range {min(values):.2f} to "
            f"{max(values):.2f}), bar <= {BAR}x: {'met' if good else 'MISSED'}"
        )
        print(json.dumps({"name": "weights_faults", "fault": name, "size": size, "ratios": values, "met": good}))
    print(f"right result or right error: {'all' if not wrong else f'{len(wrong)} wrong'}")
    for line in wrong:
        print(f"  {line}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

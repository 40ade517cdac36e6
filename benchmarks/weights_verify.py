"""How long it takes to hash a cache again: `nimctl cache verify` against `sha256sum` of the same files.

4 GiB in 8 files, once read just before (warm) and once dropped from the page cache (cold). Whole processes, alternating
pairs. Bar: 5x as fast, median of the pairs, warm; cold the disk may be what both wait for, so that is shown only.

    scripts/bench weights_verify [--pairs 9] [--folder DIR]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._weights_origin import need_room, origin
from benchmarks.pairs import alternate, report, seconds
from benchmarks.weights_download import child

FILES, SIZE = 8, 512 * 2**20
BAR = 5.0


def read(paths: Sequence[Path]) -> None:
    """Bring the files into the page cache."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(2**22):
                pass


def drop(paths: Sequence[Path]) -> None:
    """Put the files out of the page cache; no rights are needed for that."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> int:
    """Measure; exit 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    need_room(given.folder, 2 * FILES * SIZE)
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-", dir=given.folder) as name:
        cache = Path(name)
        with origin(FILES, SIZE) as served:
            child("ours", served.url, cache, [])
        blobs = sorted(path for path in cache.rglob("blobs/*") if path.stat().st_size >= SIZE)
        ours = [sys.executable, "-m", "nimctl", "cache", "verify", "--cache", str(cache), "--quiet"]
        peer = ["sha256sum", *map(str, blobs)]

        def timed(argv: Sequence[str], prepare: Callable[[Sequence[Path]], None]) -> Callable[[], float]:
            def run() -> float:
                prepare(blobs)
                return seconds(argv)

            return run

        warm = alternate(timed(ours, read), timed(peer, read), given.pairs)
        cold = alternate(timed(ours, drop), timed(peer, drop), given.pairs)
    told = subprocess.run(["sha256sum", "--version"], capture_output=True, text=True, check=True).stdout
    name = f"nimctl cache verify / {told.splitlines()[0]}"
    for result in (warm, cold):
        result.update(times_as_fast=round(1 / result["ratio_median"], 2), cores=os.cpu_count())
    met = report(f"{name}, warm", f"<= {1 / BAR}x of the time", warm, warm["ratio_median"] <= 1 / BAR)
    report(f"{name}, cold", "none", cold, met=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

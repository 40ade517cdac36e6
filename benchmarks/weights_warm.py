"""How long a start waits when the weights are there: a complete checkpoint of 64 files and 600 GB.

The files are sparse, so the disk holds none of the 600 GB; a warm start reads names, sizes and the marker, never
weights. Bar: 100 ms, median, for `fetch()` in a process that runs already, and for a fresh process less what
`python -c ''` takes (median of the differences).

    scripts/bench weights_warm [--times 31]
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pairs import seconds
from nimctl.core.cache import CachePaths, make_shared_folder
from nimctl.core.fetch import File, Manifest, fetch, install

FILES, TOTAL = 64, 600 * 10**9
LIMIT_S = 0.1
REPO, COMMIT = "bench/large", "beef" * 10
URI = f"hf://{REPO}"


def lay_out(root: Path) -> None:
    """The checkpoint as a download leaves it, with holes for weights."""
    paths = CachePaths(root)
    repo = paths.repo(REPO, "huggingface")
    make_shared_folder(repo.blobs, root)
    private = repo.partial / "bench"
    make_shared_folder(private, root)
    files = [File("config.json", 2, f"sha256:{hashlib.sha256(b'{}').hexdigest()}")]
    for number in range(FILES - 1):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        files.append(
            File(f"model-{number + 1:05}-of-{FILES - 1:05}.safetensors", TOTAL // (FILES - 1), f"sha256:{digest}")
        )
    for file in files:
        with (repo.blobs / file.key).open("wb") as blob:
            blob.truncate(file.size)
    (repo.blobs / files[0].key).write_bytes(b"{}")
    manifest = Manifest(URI, COMMIT, tuple(files))
    install.snapshot(paths, repo, manifest, {f.key: f.key for f in files}, private=private, refs=("main",))
    private.rmdir()


def inside(root: Path, times: int) -> list[float]:
    """Seconds of `fetch` in this process."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        folder = fetch(URI, root)
        taken.append(time.perf_counter() - begin)
        if len(list(folder.iterdir())) != FILES:
            raise SystemExit("error: the warm start has not found the checkpoint")
    return taken


def fresh(root: Path, times: int) -> list[float]:
    """Seconds of a fresh process that does nothing else, less those of an empty one right after it."""
    code = f"from pathlib import Path; from nimctl.core.fetch import fetch; fetch({URI!r}, Path({str(root)!r}))"
    ours, empty = [sys.executable, "-c", code], [sys.executable, "-c", ""]
    seconds(ours)
    return [seconds(ours) - seconds(empty) for _ in range(times)]


def main() -> int:
    """Measure both; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=31)
    times = parser.parse_args().times
    load, met = os.getloadavg()[0], True
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-") as name:
        root = Path(name)
        lay_out(root)
        for kind, taken in (
            ("in a running process", inside(root, times)),
            ("fresh process less Python", fresh(root, times)),
        ):
            median = statistics.median(taken)
            good = median <= LIMIT_S
            met = met and good
            print(
                f"warm start of {FILES} files, {TOTAL / 1e9:.0f} GB, {kind}: median {median * 1000:.1f} ms (range "
                f"{min(taken) * 1000:.1f} to {max(taken) * 1000:.1f}), bar <= {LIMIT_S * 1000:.0f} ms: "
                f"{'met' if good else 'MISSED'}"
            )
            shown = [round(value, 5) for value in taken]
            print(
                json.dumps({"name": "weights_warm", "kind": kind, "seconds": shown, "met": good, "load_before": load})
            )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

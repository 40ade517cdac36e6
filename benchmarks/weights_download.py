"""How fast weights arrive: verified and on the disk, against the disk itself, aria2c and huggingface_hub.

4 GiB in 8 files from nginx on loopback. A round runs all four in turn, the next round in the other order; ratios are of
one round. Each ends with its files synced, ours and aria2c also with every SHA-256 compared; huggingface_hub hashes
nothing. Bars, medians of the ratios of speed: 0.9x of `dd oflag=direct` in blocks of 4 MiB, 2x of `aria2c -x16`, 2x of
huggingface_hub over plain HTTP; our memory at its highest 256 MiB.

    scripts/bench weights_download [--rounds 7] [--folder DIR] [--pin]
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._weights_child import sync
from benchmarks._weights_origin import Origin, need_room, origin

FILES, SIZE = 8, 512 * 2**20
BARS = {"dd": 0.9, "aria2c": 2.0, "hub": 2.0}
PEAK_MIB = 256.0
ARIA2_OPTIONS = ("-x16", "-s16", "-k1M", "-j8", "--file-allocation=falloc")
_QUIET = ("--no-conf", "--console-log-level=error", "--summary-interval=0", "--download-result=hide")


def child(what: str, endpoint: str, cache: Path, bound: list[str]) -> dict[str, float]:
    """One run of `_weights_child`: seconds, processor time and peak memory."""
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    argv = [*bound, sys.executable, "-m", "benchmarks._weights_child", what, endpoint, str(cache)]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, timeout=300)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def dd(total: int, folder: Path) -> dict[str, float]:
    """`dd` of so many bytes past the page cache."""
    argv = ["dd", "if=/dev/zero", f"of={folder}/zeroes", "bs=4M", f"count={total // 2**22}", "oflag=direct"]
    begin = time.perf_counter()
    subprocess.run([*argv, "conv=fsync"], check=True, capture_output=True, timeout=300)
    return {"seconds": time.perf_counter() - begin}


def aria2c(served: Origin, folder: Path, bound: list[str]) -> dict[str, float]:
    """`aria2c` with the checksum of every file, and a sync at its end as it does none."""
    lines = [
        f"{served.file_url(shard)}\n out={shard.name}\n checksum=sha-256={shard.sha256}\n" for shard in served.shards
    ]
    begin = time.perf_counter()
    argv = [*bound, "aria2c", *_QUIET, *ARIA2_OPTIONS, "-i", "-", "-d", str(folder)]
    subprocess.run(argv, input="".join(lines), text=True, check=True, stdout=subprocess.DEVNULL, timeout=300)
    sync(folder)
    return {"seconds": time.perf_counter() - begin}


def one_round(
    served: Origin, folder: Path, bound: list[str], *, backwards: bool, peers: list[str]
) -> dict[str, dict[str, float]]:
    """Everybody once, each into an empty folder that is removed before the next begins."""
    runs: dict[str, Callable[[Path], dict[str, float]]] = {
        "dd": lambda place: dd(served.total, place),
        "ours": lambda place: child("ours", served.url, place, bound),
        "aria2c": lambda place: aria2c(served, place, bound),
        "hub": lambda place: child("hub", served.url, place, bound),
    }
    results = {}
    for name in reversed(runs) if backwards else runs:
        if name == "ours" or name in peers:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                results[name] = runs[name](Path(place))
            os.sync()  # what is deleted must not be written in the next one's time
    return results


def hash_ceiling(total: int) -> float:
    """GB/s of SHA-256 on all cores together, over bytes in memory."""
    cores = len(os.sched_getaffinity(0))
    data = memoryview(os.urandom(4 * 2**20))
    turns = total // len(data) // cores

    def work() -> None:
        digest = hashlib.sha256()
        for _ in range(turns):
            digest.update(data)

    threads = [threading.Thread(target=work) for _ in range(cores)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return turns * cores * len(data) / (time.perf_counter() - begin) / 1e9


def explain(rounds: list[dict[str, dict[str, float]]], served: Origin, bound: list[str]) -> dict[str, Any]:
    """Where the time of ours goes: processor time, and the speeds that hashing and receiving reach alone."""
    ours = [run["ours"] for run in rounds]
    received = [child("receive", served.url, Path(), bound)["seconds"] for _ in range(3)]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "ours_user_s": round(statistics.median(run["user_s"] for run in ours), 2),
        "ours_system_s": round(statistics.median(run["system_s"] for run in ours), 2),
        "hash_only_GBps": round(hash_ceiling(served.total), 2),
        "receive_only_GBps": round(served.total / statistics.median(received) / 1e9, 2),
        "bytes_lie_in": served.source,
    }


def versions(peers: list[str]) -> dict[str, str]:
    """Of everybody in the race."""
    told = {"python": sys.version.split()[0], "kernel": os.uname().release}
    for name in peers:
        if name == "hub":
            told["huggingface_hub"] = importlib.metadata.version("huggingface_hub")
        else:
            output = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
            told[name] = output.splitlines()[0].split()[-1]
    return told


def judge(rounds: list[dict[str, dict[str, float]]], total: int, peers: list[str]) -> bool:
    """Print each ratio and the memory; whether every bar is met."""
    all_met = True
    for peer in peers:
        ratios = sorted(run[peer]["seconds"] / run["ours"]["seconds"] for run in rounds)
        speeds = {
            name: statistics.median(total / run[name]["seconds"] / 1e9 for run in rounds) for name in (peer, "ours")
        }
        median, bar = statistics.median(ratios), BARS[peer]
        met = median >= bar
        all_met = all_met and met
        print(
            f"nimctl / {peer}: {median:.2f}x (range {ratios[0]:.2f} to {ratios[-1]:.2f}; {speeds['ours']:.2f} against "
            f"{speeds[peer]:.2f} GB/s), bar >= {bar}x: {'met' if met else 'MISSED'}"
        )
        print(json.dumps({"name": f"weights_download/{peer}", "bar": bar, "met": met, "ratios": ratios, **speeds}))
    peak = max(run["ours"]["peak_mib"] for run in rounds)
    print(f"peak memory: {peak:.0f} MiB, bar <= {PEAK_MIB:g} MiB: {'met' if peak <= PEAK_MIB else 'MISSED'}")
    return all_met and peak <= PEAK_MIB


def main() -> int:
    """Measure; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--pin", action="store_true", help="nginx on the first core, the client on the second")
    given = parser.parse_args()
    peers = [
        name for name in BARS if shutil.which(name) or (name == "hub" and importlib.util.find_spec("huggingface_hub"))
    ]
    need_room(given.folder, 3 * FILES * SIZE)
    bound = ["taskset", "-c", "1"] if given.pin else []
    with (
        tempfile.TemporaryDirectory(prefix="nimctl-bench-", dir=given.folder) as name,
        origin(FILES, SIZE, cpu=0 if given.pin else None) as served,
    ):
        load = os.getloadavg()[0]
        one_round(served, Path(name), bound, backwards=False, peers=peers)
        rounds = []
        for number in range(given.rounds):
            rounds.append(one_round(served, Path(name), bound, backwards=bool(number % 2), peers=peers))
            shown = {peer: round(run["seconds"], 2) for peer, run in rounds[-1].items()}
            print(f"round {number + 1}: seconds {shown}", file=sys.stderr)
        split = explain(rounds, served, bound)
    met = judge(rounds, served.total, peers)
    print(json.dumps({"rounds": given.rounds, "pinned": given.pin, "load_before": load, **split, **versions(peers)}))
    print(f"aria2c was run with {' '.join(ARIA2_OPTIONS)} and checksum=sha-256 for each file")
    missing = sorted(set(BARS) - set(peers))
    if missing:
        print(f"not here, so not compared: {', '.join(missing)}")
    return 0 if met and not missing else 1


if __name__ == "__main__":
    sys.exit(main())

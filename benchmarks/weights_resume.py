"""What a killed download costs: bytes that are fetched a second time after `kill -9`.

512 MiB in 8 files from the tests' fault hub (16 MB/s for each connection), killed when a quarter, half and three
quarters have been sent, then run again to the end. Fetched twice is what was sent in both runs, less the checkpoint:
the kernel's socket buffers (bounded on the server's side) count as sent, for everybody alike. Peers: huggingface_hub
over plain HTTP and `aria2c -c` as it comes (it saves its state once a minute). Bar: at most one range per open
connection. A range of ours is asked for in one piece but kept by blocks of 4 MiB, so the bar is set at a block and the
socket buffers of each connection.

    scripts/bench weights_resume [--times 3]
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._weights_origin import REPO
from nimctl.core.fetch.transfer.blocks import BLOCK
from nimctl.core.fetch.transfer.limit import START
from tests.lib.fault_hub import FaultHub, Slow, Sparse

FILES, SIZE = 8, 64 * 2**20
RATE = 16e6  # bytes a second and connection
SHARES = (0.25, 0.5, 0.75)
_SEND_BUFFER = 256 * 1024
# What the receiver's kernel may hold of one connection besides: tcp_rmem's largest value is 6 MiB on most
# distributions, and half of it is window. https://docs.kernel.org/networking/ip-sysctl.html
_RECEIVE_BUFFER = 3 * 2**20
BAR = START * (BLOCK + _SEND_BUFFER + _RECEIVE_BUFFER)


def argv_of(who: str, hub: FaultHub, commit: str, cache: Path) -> list[str]:
    """The program that downloads; the same command is run again after the kill."""
    if who == "aria2c":
        urls = "".join(f"{hub.files_url}/{name}\n out={name}\n" for name in contents())
        (cache / "list").write_text(urls, encoding="ascii")
        quiet = ["--no-conf", "--console-log-level=error", "--summary-interval=0", "--download-result=hide"]
        return [
            "aria2c",
            *quiet,
            "-c",
            "-x16",
            "-s16",
            "-j8",
            "--file-allocation=falloc",
            "-i",
            f"{cache}/list",
            "-d",
            f"{cache}/files",
        ]
    return [sys.executable, "-m", "benchmarks._weights_child", who, hub.url, str(cache), commit]


def contents() -> dict[str, Sparse]:
    """The checkpoint's weights."""
    return {f"model-{n + 1:05}-of-{FILES:05}.safetensors": Sparse(SIZE, seed=n) for n in range(FILES)}


def wasted(who: str, share: float) -> int:
    """Bytes that `who` fetches twice when it is killed at `share` of the whole."""
    total = FILES * SIZE
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with FaultHub(send_buffer=_SEND_BUFFER) as hub, tempfile.TemporaryDirectory(prefix="nimctl-bench-") as name:
        files = contents()
        commit = hub.add_repo(REPO, {"config.json": b"{}", **files})
        for path, content in files.items():
            hub.add_file(path, content)
        hub.fail("*.safetensors", Slow(RATE))
        argv = argv_of(who, hub, commit, Path(name))
        first = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)
        try:
            hub.wait_for(lambda ledger: ledger.bytes_sent("*.safetensors") >= share * total, 120)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=300)
        return hub.bytes_sent("*.safetensors") - total


def main() -> int:
    """Measure; exit 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    met = True
    for who in ("ours", "hub", "aria2c"):
        if who != "ours" and not (shutil.which(who) or (who == "hub" and importlib.util.find_spec("huggingface_hub"))):
            print(f"{who} is not here, so not compared")
            continue
        for share in SHARES:
            twice = sorted(wasted(who, share) for _ in range(times))
            good = who != "ours" or twice[-1] <= BAR
            met = met and good
            bar = f", bar <= {BAR / 2**20:.0f} MiB: {'met' if good else 'MISSED'}" if who == "ours" else ""
            median, least, most = (count / 2**20 for count in (statistics.median(twice), twice[0], twice[-1]))
            print(
                f"{who} killed at {share:.0%} of {FILES * SIZE / 2**20:.0f} MiB: fetched twice median {median:.1f} MiB "
                f"(range {least:.1f} to {most:.1f}){bar}"
            )
            print(json.dumps({"name": "weights_resume", "who": who, "share": share, "twice": twice, "met": good}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""One download in a process of its own, as JSON: `python -m benchmarks._weights_child WHAT ENDPOINT CACHE [COMMIT]`.

WHAT: `ours` is nimctl's fetch, `hub` huggingface_hub's snapshot_download, `receive` our HTTP client that throws away
what arrives. `seconds` is the call alone, without the start of Python, for both; files are on the disk when it ends.
"""

import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._weights_origin import COMMIT, REPO
from nimctl.core.fetch import Access, fetch
from nimctl.core.fetch.http import Client, Target
from nimctl.core.fetch.transfer.blocks import BLOCK, new_buffer


def ours(endpoint: str, cache: Path, commit: str) -> None:
    """nimctl, which syncs by itself."""
    fetch(f"hf://{REPO}:{commit}", cache, access=Access(hf_endpoint=endpoint))


def receive(endpoint: str, cache: Path, commit: str) -> None:
    """Eight connections of our client, and nothing done with the bytes."""
    tree = Client().get(f"{endpoint}/api/models/{REPO}/tree/{commit}").json()
    shards = [entry for entry in tree if "lfs" in entry]

    def read(entry: dict[str, int | str]) -> None:
        buffer, size = new_buffer(), int(entry["size"])
        target = Target(f"{endpoint}/bytes/{entry['path']}", size=size)
        stream = Client().open_range(target, 0, size)
        left = size
        while left:
            left -= stream.readinto(buffer[: min(left, BLOCK)])

    threads = [threading.Thread(target=read, args=(entry,)) for entry in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _hub(endpoint: str, cache: Path, commit: str) -> None:
    """huggingface_hub with its eight workers; it neither hashes nor syncs, so the files are synced here."""
    # imported by the one process that needs it, or it would count for ours
    library = importlib.import_module("huggingface_hub")
    folder = library.snapshot_download(REPO, revision=commit, cache_dir=cache, endpoint=endpoint, token=False)
    sync(Path(folder))


def sync(folder: Path) -> None:
    """Force every file below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def main() -> int:
    """Run it and tell what it cost."""
    what: Callable[[str, Path, str], None] = {"ours": ours, "receive": receive, "hub": _hub}[sys.argv[1]]
    if sys.argv[1] == "hub":
        importlib.import_module("huggingface_hub.file_download")
    begin = time.perf_counter()
    what(sys.argv[2], Path(sys.argv[3]), *(sys.argv[4:] or [COMMIT]))
    seconds = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # not ru_maxrss, which begins with what the parent had
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    told = {"seconds": seconds, "user_s": usage.ru_utime, "system_s": usage.ru_stime, "peak_mib": peak}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())

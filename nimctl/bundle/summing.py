"""SHA-256 of files for which nobody has one."""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nimctl.core.fetch import Progress

_BLOCK = 4 * 2**20


def digests_of(paths: Sequence[Path], on_progress: Callable[[Progress], None]) -> list[str]:
    """The SHA-256 of each file in hexadecimal, several read at a time. Raises OSError."""
    total = sum(path.stat().st_size for path in paths)
    done = [0]
    lock = threading.Lock()

    def digest(path: Path) -> str:
        hasher = hashlib.sha256()
        with path.open("rb") as content:
            while block := content.read(_BLOCK):
                hasher.update(block)
                with lock:
                    done[0] += len(block)
                    on_progress(Progress(done[0], total, path.name, phase="verifying"))
        return hasher.hexdigest()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(digest, paths))

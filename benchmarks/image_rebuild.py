"""A build after an edit of our own code: how long, and how many new bytes; and the same inputs twice.

    scripts/bench image_rebuild [--edits 3] [--twice]

Builds the cpu image from a copy of this checkout, edits a line of the copy, now in the entrypoint, now in the core, and
builds again. New bytes are those of layers that the image before did not have. With --twice the copy is also built from
nothing (`--no-cache`, minutes) in another folder, and must give the same digest.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS, BYTES = 5.0, 2e6
ROOT = Path(__file__).resolve().parent.parent
EDITED = ("entrypoint/state.py", "nimctl/core/layout.py", "nimctl/core/errors.py")
TAG = "nimctl-bench/cpu:rebuild"


def copy(to: Path) -> Path:
    """The files of this checkout that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "nimctl", "entrypoint", "images"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def build(tree: Path, *, fresh: bool = False) -> tuple[float, list[tuple[str, int]], str]:
    """Seconds, layers (digest, bytes) and digest of a build of `tree`."""
    made = (
        "import os; from nimctl.images import bake, build; command = bake.bake_command\n"
        f"if {fresh}: bake_fresh = lambda *a, **k: [*command(*a, **k), '--no-cache']; import nimctl.images as i; "
        "i.bake_command = bake_fresh\n"
        f"print(build('cpu', env=os.environ, tag={TAG!r}).digest)"
    )
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": "1763000000"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", made], cwd=tree, env=environ, capture_output=True, text=True, check=False, timeout=1800
    )
    took = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    about = json.loads(_docker("image", "inspect", TAG))[0]
    lines = _docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", TAG).split()
    sizes = [int(size) for size in reversed(lines)]
    layers = about["RootFS"]["Layers"]
    filled = [size for size in sizes if size] if len(sizes) != len(layers) else sizes
    # a layer without files has no bytes in the history, and is one of the list all the same
    named = list(zip(layers, filled + [0] * (len(layers) - len(filled)), strict=False))
    return took, named, about["Id"]


def _docker(*argv: str) -> str:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=60).stdout


def main() -> int:
    """Print seconds and new bytes of each rebuild; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--edits", type=int, default=3)
    parser.add_argument("--twice", action="store_true", help="build from nothing as well, and compare digests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nimctl-rebuild-") as folder:
        tree = copy(Path(folder) / "tree")
        _, before, digest = build(tree)
        _, _, again = build(tree)
        result: dict[str, object] = {"same_from_cache": digest == again}
        if options.twice:
            elsewhere = copy(Path(folder) / "another place")
            took, _, fresh = build(elsewhere, fresh=True)
            result |= {"same_from_nothing": digest == fresh, "from_nothing_s": round(took, 1)}
        seconds, new = [], []
        for number in range(options.edits):
            file = tree / EDITED[number % len(EDITED)]
            file.write_text(f"{file.read_text()}\n# {time.time_ns()}\n")
            took, layers, _ = build(tree)
            seconds.append(round(took, 2))
            new.append(sum(size for layer, size in layers if layer not in {known for known, _ in before}))
            before = layers
    same = all(value for name, value in result.items() if name.startswith("same"))
    met = max(seconds) <= SECONDS and max(new) <= BYTES and same
    print(
        f"image_rebuild: {statistics.median(seconds)} s (max {max(seconds)} s, bar {SECONDS:.0f} s), new "
        f"{max(new) / 1e6:.2f} MB at most (bar {BYTES / 1e6:.0f} MB), same inputs same digest: {same}: "
        f"{'met' if met else 'MISSED'}"
    )
    print(
        json.dumps(
            {"name": "image_rebuild", "met": met, "seconds": seconds, "new_bytes": new, "digest": digest, **result}
        )
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

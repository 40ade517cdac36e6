"""How long people wait before nimctl does anything.

Bars: `nimctl --version` at most 1.5x of `python -I -S -E -c ''` (the floor of any Python program), and
`nimctl --help` at most 0.5x of `ramalama --help` (the nearest neighbour). ramalama is installed into a virtual
environment of its own under a temporary folder; nimctl is installed there too, as users install it.

    scripts/bench cli_startup [--pairs 15]
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.pairs import alternate, report, seconds

PEER = "ramalama==0.25.0"
ROOT = Path(__file__).parent.parent


def install(folder: Path, *packages: str) -> Path:
    """A fresh environment with `packages`; returns its folder of programs."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True, stderr=subprocess.DEVNULL, timeout=300)
    subprocess.run([*pip, *packages], check=True, stderr=subprocess.DEVNULL, timeout=600)
    return folder / "bin"


def main() -> int:
    """Measure both bars; exit 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        ours = install(Path(folder, "nimctl"), str(ROOT))
        peer = install(Path(folder, "ramalama"), PEER)
        nimctl, python = str(ours / "nimctl"), str(ours / "python")
        version = alternate(
            lambda: seconds([nimctl, "--version"]), lambda: seconds([python, "-I", "-S", "-E", "-c", ""]), pairs
        )
        help_ = alternate(
            lambda: seconds([nimctl, "--help"]), lambda: seconds([str(peer / "ramalama"), "--help"]), pairs
        )
    met = [
        report("nimctl --version / python -I -S -E -c ''", "<= 1.5x", version, version["ratio_median"] <= 1.5),
        report(f"nimctl --help / {PEER} --help", "<= 0.5x", help_, help_["ratio_median"] <= 0.5),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Install the CPU build of torch into the environment whose Python runs this file; shared by the image and by set-up.

    PYTHON images/cpu/install_torch.py

First from where pip is configured to look for local wheels (`find-links`), without any index; else from PyTorch's own
CPU index, which is asked for torch alone, because the ordinary index serves CUDA builds of it. Safe to run again.
"""
# ruff: noqa: T201

import subprocess
import sys
from importlib import metadata
from pathlib import Path

REQUIREMENT = Path(__file__).with_name("torch.txt")
INDEX = "https://download.pytorch.org/whl/cpu"
TIMEOUT_S = 1800


def wanted() -> str:
    """The pinned version, for example `2.13.0+cpu`."""
    lines = REQUIREMENT.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("torch==").strip(" \\") for line in lines if line.startswith("torch=="))


def installed() -> str | None:
    """The version of torch in this environment, None where there is none."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def pip_install(*options: str, quiet: bool = False) -> bool:
    """Run pip for torch alone; True when it succeeded. `quiet` hides what pip says when it fails."""
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
    argv = [*pip, *options, *sys.argv[1:], "-r", str(REQUIREMENT)]
    return subprocess.run(argv, check=False, capture_output=quiet, timeout=TIMEOUT_S).returncode == 0


def main() -> int:
    """Install torch where it is missing or another version; 0 when the pinned version is there."""
    version = wanted()
    if installed() == version:
        print(f"torch {version} is installed already")
        return 0
    print(f"torch {version}: looking in pip's local wheel folders", flush=True)
    if pip_install("--no-index", quiet=True):
        print(f"torch {version}: installed from a local wheel")
        return 0
    print(f"torch {version}: not in a local wheel folder; asking {INDEX}", flush=True)
    return 0 if pip_install("--index-url", INDEX) else 1


if __name__ == "__main__":
    sys.exit(main())

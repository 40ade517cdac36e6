"""Install one group of the cuda lock, so that each group becomes an image layer of its own.

    python install_group.py nvidia|torch|rest

Reads requirements.txt beside it; every package belongs to exactly one group. pip checks all hashes.
"""
# ruff: noqa: T201

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.txt")
GROUPS = {"nvidia": re.compile(r"nvidia-(?!ml-py|cutlass)"), "torch": re.compile(r"(torch|triton)")}


def group_of(name: str) -> str:
    """The group of a package name: the first pattern that matches its beginning, else `rest`."""
    return next((group for group, pattern in GROUPS.items() if pattern.match(name)), "rest")


def entries(text: str) -> list[str]:
    """The lock's requirements, each with the hashes on its continuation lines."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def main() -> int:
    """Install the group named on the command line; returns pip's exit code."""
    chosen = [line for line in entries(LOCK.read_text(encoding="utf-8")) if group_of(line) == sys.argv[1]]
    print(f"{sys.argv[1]}: {len(chosen)} packages")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(chosen) + "\n")
        file.flush()
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
        pip += ["--only-binary", ":all:", "-r", file.name]
        return subprocess.run(pip, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Install FlashInfer's compiled kernels, so that no first start compiles them for minutes. Safe to run again.

    python kernels.py auto|required|off [WHEELS]

What `vllm download-kernels` does, for fewer GPUs, and with wheels of the builder's own first: WHEELS may hold
flashinfer_cubin and the family of flashinfer_jit_cache. Else FlashInfer's own index is asked, which the package index
does not mirror; pip's settings (CA, proxies, credentials) hold for it as well. With them an H100 took 143 s instead of
264 s until its engine stood: https://github.com/vllm-project/vllm/issues/47456
"""
# ruff: noqa: T201

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

# Hopper, Blackwell and Blackwell Ultra: the GPUs of the large recipes. For others FlashInfer compiles as it always did.
ARCHITECTURES = ("sm90a", "sm100a", "sm103a")
FAMILIES = ("flashinfer_cubin", "flashinfer_jit_cache")


def local_wheels(folder: Path, version: str) -> list[Path]:
    """The kernels for FlashInfer `version` among the wheels in `folder`; empty unless both families are there."""
    named = re.compile(rf"({'|'.join(FAMILIES)})\w*-{re.escape(version)}(\+\w+)?-.+\.whl")
    found = sorted(path for path in folder.glob("flashinfer_*.whl") if named.fullmatch(path.name))
    complete = all(any(path.name.startswith(family) for path in found) for family in FAMILIES)
    return found if complete else []


def commands(wheels: list[Path]) -> list[list[str]]:
    """What is run: pip with local wheels, or FlashInfer's own installer."""
    if wheels:
        return [[sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", *map(str, wheels)]]
    installer = [sys.executable, "-m", "flashinfer"]
    minimal = [word for name in ARCHITECTURES for word in ("--sm", name)]
    return [
        [*installer, "install-cubin-wheel"],
        [*installer, "install-jit-cache-wheel", "--mode", "minimal", *minimal],
    ]


def main() -> int:
    """Install what can be; 1 where it is required and cannot be."""
    wanted, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "/wheels")
    if wanted == "off":
        print("FlashInfer's kernels are left out: they are compiled at the first start")
        return 0
    if wanted not in ("auto", "required"):
        print(f"{wanted} is none of auto, required and off", file=sys.stderr)
        return 1
    version = importlib.metadata.version("flashinfer-python")
    # Kernels of another version keep FlashInfer from being imported, its own installer included.
    environ = {**os.environ, "FLASHINFER_DISABLE_VERSION_CHECK": "1"}
    for command in commands(local_wheels(folder, version)):
        if code := subprocess.run(command, env=environ, check=False).returncode:
            print(f"FlashInfer's kernels for {version} could not be installed (exit {code})", file=sys.stderr)
            print("they will be compiled at the first start and kept in the cache", file=sys.stderr)
            return 1 if wanted == "required" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

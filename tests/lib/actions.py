"""The container's actions as another user, as Kubernetes starts them: whatever it may read, this Python may not be it.

The program is imported by the caller's user and gives up its rights before it looks at its command line; where the
caller is no root, it stays who he is.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_AS_USER = """
import codecs, importlib, os, pkgutil, sys
import entrypoint.__main__ as door, entrypoint.actions, entrypoint.steps
for one in pkgutil.walk_packages(["entrypoint"], "entrypoint."):
    importlib.import_module(one.name)
for name in ("ascii", "idna", "latin-1"):
    codecs.lookup(name)
uid, gid = int(sys.argv[1]), int(sys.argv[2])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
os.chdir("/")
sys.argv[1:] = sys.argv[3:]
door.run()
"""


@dataclass(frozen=True)
class Ran:
    """How an action ended and what it said."""

    code: int
    out: str
    err: str


def run_as(user: tuple[int, int], *words: str, **environ: str) -> Ran:
    """`python -m entrypoint WORDS` as `uid:gid`, with nothing in the environment but `environ`."""
    ran = subprocess.run(
        [sys.executable, "-c", _AS_USER, *map(str, user), *words],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environ},
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def run(*words: str, **environ: str) -> Ran:
    """`python -m entrypoint WORDS` as the caller."""
    ran = subprocess.run(
        [sys.executable, "-m", "entrypoint", *words],
        env={"PATH": os.environ["PATH"], **environ},
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    return Ran(ran.returncode, ran.stdout, ran.stderr)

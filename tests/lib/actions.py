"""The container's actions as Kubernetes starts them, as another user: whatever it may read, this Python may not be it.

A start of Python and of all that the actions import takes longer than what most of them do. So one process imports it
once and forks for each action: the child gives up its rights before it looks at its command line, and has nothing but
the environment that it is given. Where the caller is no root, it stays who he is.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SECONDS = 120.0
_NURSERY = """
import codecs, importlib, json, os, pkgutil, sys
import entrypoint.__main__ as door
for one in pkgutil.walk_packages(["entrypoint"], "entrypoint."):
    importlib.import_module(one.name)
for name in ("ascii", "idna", "latin-1"):
    codecs.lookup(name)

def act(asked):
    for number, path in enumerate(asked["output"], 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    if os.geteuid() == 0 and asked["user"] is not None:
        os.setgroups([])
        os.setgid(asked["user"][1])
        os.setuid(asked["user"][0])
        os.chdir("/")
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv[1:] = asked["words"]
    door.run()

for line in sys.stdin:
    child = os.fork()
    if not child:
        act(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """How an action ended and what it said."""

    code: int
    out: str
    err: str


def run_as(user: tuple[int, int], *words: str, **environ: str) -> Ran:
    """`python -m entrypoint WORDS` as `uid:gid` in `/`, with nothing in the environment but `environ`."""
    return _run(user, words, environ)


def run(*words: str, **environ: str) -> Ran:
    """`python -m entrypoint WORDS` as the caller."""
    return _run(None, words, environ)


def _run(user: tuple[int, int] | None, words: tuple[str, ...], environ: dict[str, str]) -> Ran:
    nursery = _nursery()
    assert nursery.stdin is not None and nursery.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        asked = {"user": user, "words": words, "environ": {"PATH": os.environ["PATH"], **environ}}
        nursery.stdin.write(json.dumps({**asked, "output": [out.name, err.name]}) + "\n")
        nursery.stdin.flush()
        assert select.select([nursery.stdout], [], [], _SECONDS)[0], f"{words} does not end"
        code = nursery.stdout.readline()
        return Ran(int(code), out.read(), err.read())


@cache
def _nursery() -> subprocess.Popen[str]:
    """The process that forks; it ends with ours."""
    process = subprocess.Popen(
        [sys.executable, "-c", _NURSERY],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(_SECONDS)

    atexit.register(end)
    return process

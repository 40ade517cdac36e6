"""What every process that a command started was given: words and variables, as the kernel was told them."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PIECE = re.compile(r'"(?:\\.|[^"\\])*"|\[|\]')
_CALL = re.compile(r"^(?P<pid>\d+) +(?:[\d.]+ )?execve(?:at)?\((?P<rest>.*)$")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_SINGLE = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f"}


@dataclass(frozen=True)
class Spawned:
    """One program that was started (or could not be: the try counts): its words and its variables."""

    argv: tuple[str, ...]
    environ: tuple[str, ...]


def strace(log: Path) -> list[str]:
    """The words to put before a command so that `log` holds every program that it starts, and these in turn."""
    quiet = ["-f", "-qq", "--seccomp-bpf", "-v", "-s", "1000000", "-e", "trace=execve,execveat", "-e", "signal=none"]
    return ["strace", *quiet, "-o", str(log)]


def read(log: Path) -> list[Spawned]:
    """What `strace` wrote down."""
    return [spawned for line in log.read_text(errors="replace").splitlines() if (spawned := _call(line))]


def _call(line: str) -> Spawned | None:
    found = _CALL.match(line)
    if found is None:
        return None
    lists: list[list[str]] = []
    inside = False
    for piece in _PIECE.findall(found["rest"]):
        if piece == "[":
            lists.append([])
            inside = True
        elif piece == "]":
            inside = False
        elif inside:
            lists[-1].append(_unescaped(piece[1:-1]))
    argv, environ, *_ = [*lists, [], []]
    return Spawned(tuple(argv), tuple(environ))


def _unescaped(text: str) -> str:
    def one(match: "re.Match[bytes]") -> bytes:
        hexadecimal, octal, single = match.groups()
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        return bytes([int(octal, 8) & 255]) if octal else _SINGLE.get(single, single)

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape")).decode(errors="surrogateescape")


class Watch:
    """Looks at the processes of containers many times a second, as these are nobody's children here."""

    def __init__(self, docker: Sequence[str], label: str) -> None:
        self._docker, self._label = list(docker), label
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: set[Spawned] = set()
        self.inspected: dict[str, str] = {}

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._end.wait(0.1):
            ids = self._ask("ps", "--all", "--no-trunc", "--quiet", "--filter", self._label).split()
            for one in ids:
                # again at every look: what is added after the creation counts as well
                self.inspected[one] = self._ask("inspect", one) or self.inspected.get(one, "")
            if ids:
                self.seen |= set(processes_of(ids))

    def _ask(self, *words: str) -> str:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                [*self._docker, *words], capture_output=True, text=True, timeout=30, check=False
            ).stdout
        return ""


def processes_of(containers: Sequence[str]) -> Iterator[Spawned]:
    """The processes that are in these containers (full ids) now."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            groups = (process / "cgroup").read_text()
            if any(one in groups for one in containers):
                argv = (process / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
                environ = (process / "environ").read_bytes().decode(errors="surrogateescape").split("\0")
                yield Spawned(tuple(argv), tuple(environ))

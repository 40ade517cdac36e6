"""All tests in three pytest processes side by side, as one: only the unit tests keep a processor busy all the time.

What starts engines and containers waits for them; faults and scenarios wait for timeouts and for programs. Each test is
in exactly one part. Options (`-x`, `--durations=20`) go to all. With a path or a choice of tests (`-m`, `-k`, `--lf`)
it is one ordinary pytest. The exit code is 0 where all are; a signal reaches all, for them to clean up.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

PARTS = {
    "engines": ["-m", "lab or engine", "--ignore=tests/unit"],
    "rest": ["-m", "not (lab or engine)", "--ignore=tests/unit"],
    "units": ["tests/unit"],
}
CHOICES = ("-m", "-k", "--lf", "--last-failed", "--ff", "--sw", "--deselect", "--ignore", "--junit", "--collect")
RECAPPED = re.compile(r"(FAILED|ERROR) |(=+ )?(\d+ [a-z]+,? .*|no tests ran )in [\d.]+s")
COLOURS = re.compile(r"\x1b\[[\d;]*m")


def main(options: Sequence[str]) -> int:
    """Run them; returns the exit code for the shell."""
    pytest = [sys.executable, "-m", "pytest", *options]
    if any(not word.startswith("-") or word.startswith(CHOICES) for word in options):
        os.execv(sys.executable, pytest)
    parts = {name: _start(name, [*pytest, *words]) for name, words in PARTS.items()}

    def pass_on(*_: object) -> None:
        for part in parts.values():
            if part.poll() is None:
                part.send_signal(signal.SIGINT)  # of a SIGTERM pytest would die, and what tests started would live on

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    recaps: dict[str, list[str]] = {name: [] for name in parts}
    lock = threading.Lock()
    readers = [
        threading.Thread(target=_show, args=(name, part, recaps[name], lock), daemon=True)
        for name, part in parts.items()
    ]
    for reader in readers:
        reader.start()
    codes = [part.wait() for part in parts.values()]
    for reader in readers:
        reader.join(10)  # what a test left running may hold the pipe
    for name, lines in recaps.items():
        print("\n".join(f"{name:7} | {line}" for line in lines) or f"{name:7} | ended without a summary")
    return max(128 - code if code < 0 else code for code in codes)


def _start(name: str, argv: list[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {"COLUMNS": str(shutil.get_terminal_size().columns - len(f"{name:7} | "))}
    if sys.stdout.isatty():
        argv = [*argv, "--color=yes"]
    # In groups of their own: Ctrl-C comes to this process, which passes it on, once.
    return subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", process_group=0,
    )  # fmt: skip


def _show(name: str, part: "subprocess.Popen[str]", recap: list[str], lock: threading.Lock) -> None:
    """Print each line when it is whole, with the part it comes from; keep what is said again at the end."""
    assert part.stdout is not None
    for text in part.stdout:
        line = text.rstrip("\n")
        with lock:
            print(f"{name:7} | {line}", flush=True)
        if RECAPPED.match(COLOURS.sub("", line)):
            recap.append(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

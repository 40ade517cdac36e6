"""All tests in two pytest processes side by side, as one: what starts engines and containers mostly waits for them.

Options (`-x`, `--durations=20`) go to both. With a path or a choice of tests (`-m`, `-k`, `--lf`) it is one ordinary
pytest. The exit code is 0 where both are; a signal reaches both, with whatever they started to be cleaned up.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

HALVES = {"engines": "lab or engine", "others": "not (lab or engine)"}
CHOICES = ("-m", "-k", "--lf", "--last-failed", "--ff", "--sw", "--deselect", "--ignore", "--junit", "--collect")
RECAPPED = re.compile(r"(FAILED|ERROR) |(=+ )?(\d+ [a-z]+,? .*|no tests ran )in [\d.]+s")
COLOURS = re.compile(r"\x1b\[[\d;]*m")


def main(options: Sequence[str]) -> int:
    """Run them; returns the exit code for the shell."""
    pytest = [sys.executable, "-m", "pytest", *options]
    if any(not word.startswith("-") or word.startswith(CHOICES) for word in options):
        os.execv(sys.executable, pytest)
    halves = {name: _start(name, [*pytest, "-m", marked]) for name, marked in HALVES.items()}

    def pass_on(*_: object) -> None:
        for half in halves.values():
            if half.poll() is None:
                half.send_signal(signal.SIGINT)  # of a SIGTERM pytest would die, and what tests started would live on

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    recaps: dict[str, list[str]] = {name: [] for name in halves}
    lock = threading.Lock()
    readers = [
        threading.Thread(target=_show, args=(name, half, recaps[name], lock), daemon=True)
        for name, half in halves.items()
    ]
    for reader in readers:
        reader.start()
    codes = [half.wait() for half in halves.values()]
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


def _show(name: str, half: "subprocess.Popen[str]", recap: list[str], lock: threading.Lock) -> None:
    """Print each line when it is whole, with the half it comes from; keep what is said again at the end."""
    assert half.stdout is not None
    for text in half.stdout:
        line = text.rstrip("\n")
        with lock:
            print(f"{name:7} | {line}", flush=True)
        if RECAPPED.match(COLOURS.sub("", line)):
            recap.append(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

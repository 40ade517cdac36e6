"""A program on a terminal of a certain width, as a person sees it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(argv: Sequence[str], env: Mapping[str, str], *, columns: int, timeout: float = 60) -> tuple[int, str]:
    """The exit code of a program, and all that it wrote to a terminal of so many columns, without colours.

    Raises TimeoutExpired where it does not end in time.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    more = {"TERM": "xterm"}
    child = subprocess.Popen(argv, env={**env, **more}, stdin=theirs, stdout=theirs, stderr=theirs, cwd=env["HOME"])
    os.close(theirs)
    try:
        written = _all_of(ours, time.monotonic() + timeout)
        return child.wait(timeout), _STYLES.sub("", written.decode()).replace("\r\n", "\n")
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _all_of(terminal: int, deadline: float) -> bytes:
    """Everything until the last program that has the terminal closes it, which Linux tells by EIO."""
    written = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            break
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        written += part
    return written

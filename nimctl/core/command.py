"""The one door through which other programs are run to the end and read."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimctl.core.secret import KEY_VARIABLES

# Logins in a variable, as a job of a CI gets them: see registry/dockerconfig.
DOCKER_LOGINS = "DOCKER_AUTH_CONFIG"
_OURS = frozenset({*KEY_VARIABLES, DOCKER_LOGINS, "NIMCTL_SIGN_PASSPHRASE"})


def without_keys(environment: Mapping[str, str], *, keep: str = "") -> dict[str, str]:
    """`environment` for a program that nimctl starts: whoever needs a key of ours is given it another way.

    Other people's keys stay, as some credential helpers live on them (`AWS_SECRET_ACCESS_KEY`); and so does `keep`.
    """
    return {name: value for name, value in environment.items() if name not in _OURS or name == keep}


@dataclass(frozen=True)
class Result:
    """What a finished program left: its exit code (None where it was missing or ran out of time) and its output."""

    argv: tuple[str, ...]
    code: int | None
    stdout: str = ""
    stderr: str = ""
    missing: bool = False
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """True when the program ran and ended with 0."""
        return self.code == 0


def run(
    argv: Sequence[str], *, timeout: float = 5.0, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> Result:
    """Run `argv` without a shell, for at most `timeout` seconds; never raises for what the program does.

    The program gets its own process group, so that whatever it started dies with it when time runs out, and `env`, else
    this process's environment, without our keys: `/proc/PID/environ` and a crash report would show them.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=without_keys(os.environ if env is None else env),
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Result(tuple(argv), None, missing=True)
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        return Result(tuple(argv), None, stdout, stderr, timed_out=True)
    except BaseException:  # Ctrl-C reaches this process alone, because the program has a session of its own
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Result(tuple(argv), process.returncode, stdout, stderr)

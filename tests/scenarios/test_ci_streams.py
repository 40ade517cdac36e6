"""Duty: a job of a CI may start nimctl with closed streams, a full disk for its log, or a reader that leaves early."""

import subprocess
import sys

import pytest

NIMCTL = f"{sys.executable} -m nimctl"


def shell(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False, stdin=-3)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{} ps >&-", 0),
        ("{} status nobody --json >&- 2>&-", 2),
        ("{} status nobody --json 2>&-", 2),
        ("{} login registry.example --password-stdin <&-", 4),
        ("{} --help <&- >&-", 0),
        ("{} ps --json | head -1", 0),
        ("{} ps >/dev/full", 9),
        ("{} ps --json >/dev/full", 9),
        ("{} status nobody --json >/dev/full", 9),
        ("{} --help >/dev/full", 9),
    ],
)
def test_it_ends_as_it_should_and_without_a_traceback(line: str, code: int, bare_host: dict[str, str]) -> None:
    done = shell(line.format(NIMCTL), bare_host)
    assert "Traceback" not in done.stderr and "internal" not in done.stderr and "Exception" not in done.stderr
    assert done.returncode == code, done.stderr
    assert code != 9 or "cannot be written" in done.stderr


def test_a_refusal_names_the_registry_that_was_meant(bare_host: dict[str, str]) -> None:
    done = shell(f"{NIMCTL} login registry.example", bare_host)
    assert done.returncode == 4 and "nimctl login registry.example" in done.stderr and "NGC" not in done.stderr

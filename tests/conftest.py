"""What all tests share: the markers' gates, the real command line, and simulated hosts.

`lab` tests need a private Docker Engine, `engine` tests a real vLLM and nginx. Where they cannot run they are skipped,
counted and named at the end; with CI=true that is a failure.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.lib import lab as the_lab

ROOT = Path(__file__).parent.parent
_skipped: dict[str, list[str]] = {}


@cache
def why_no_lab() -> str | None:
    """Why the lab cannot be used here; starts it when it can."""
    if reason := the_lab.available():
        return reason
    try:
        the_lab.up()
    except the_lab.LabError as error:
        return str(error)
    return None


@cache
def why_no_engine() -> str | None:
    """Why a real engine cannot be started on this host."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed in this environment (scripts/test installs it)"
    if not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()):
        return "nginx is not installed"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    gates = (("lab", why_no_lab), ("engine", why_no_engine))
    for marker, why_not in gates:
        if item.get_closest_marker(marker) and (reason := why_not()):
            if os.environ.get("CI", "").lower() in ("1", "true"):
                pytest.fail(f"CI must run every test, but the {marker} is missing: {reason}", pytrace=False)
            _skipped.setdefault(f"{marker}: {reason}", []).append(item.nodeid)
            pytest.skip(f"{marker}: {reason}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reason, tests in _skipped.items():
        terminalreporter.section(f"{len(tests)} tests need the {reason}")
        for test in tests:
            terminalreporter.write_line(f"  {test}")


@dataclass(frozen=True)
class Done:
    """A finished command line."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def error_id(self) -> str:
        """The id of the error in the JSON document."""
        return str(self.document["error"]["id"])


Nimctl = Callable[..., Done]


def run_nimctl(*arguments: str, env: Mapping[str, str], timeout: float = 300, stdin: str | None = None) -> Done:
    """Run the real command line in a process of its own."""
    argv = [sys.executable, "-m", "nimctl", *arguments]
    done = subprocess.run(
        argv, env=dict(env), capture_output=True, text=True, timeout=timeout, input=stdin, check=False, cwd=env["HOME"]
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own, so that no test reads or writes the user's configuration, state or cache.

    Its path is short, as homes are: a Unix socket below it may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def private_environment(base: Mapping[str, str], home: Path) -> dict[str, str]:
    """`base` without keys and settings of the caller, living in `home`."""
    kept = {
        k: v
        for k, v in base.items()
        if not k.startswith(("NIMCTL_", "NIM_", "NGC_", "HF_", "XDG_"))
        or k in ("NIMCTL_LAB_DIR", "NIMCTL_IMAGES_CUDA", "NIMCTL_BUILD_BASE")
    }
    folders = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}
    return {**kept, **folders, "NIMCTL_CACHE": str(home / "cache"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.fixture
def bare_host(home: Path) -> dict[str, str]:
    """The environment of this machine without Docker and without GPU."""
    return {**private_environment(os.environ, home), "DOCKER_HOST": f"unix://{home}/no-such.sock"}


@pytest.fixture
def host(home: Path) -> Callable[..., dict[str, str]]:
    """The environment of a simulated host of the lab by profile: `host("2xH200")`, `host("none", "containerd")`."""
    return lambda profile, store="classic": private_environment(the_lab.environment(profile, store), home)


@pytest.fixture
def containerd_store(home: Path) -> dict[str, str]:
    """The environment of the host `none` whose Docker Engine has containerd's image store, as Docker 29 has by default.

    `lab.docker(..., store="containerd")` talks to the same engine. For tests of both: `host(profile, store)`.
    """
    return private_environment(the_lab.environment("none", "containerd"), home)


@pytest.fixture
def nimctl() -> Nimctl:
    """The real command line: `nimctl("doctor", "--json", env=...)`."""
    return run_nimctl

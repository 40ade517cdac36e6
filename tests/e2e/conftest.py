"""A running demo, once for all end-to-end tests: in a container of the lab where it can run, else as a process."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import private_environment, run_nimctl, why_no_lab
from tests.e2e.server import Server, picture_server
from tests.lib import lab as the_lab

CANARY = "nvapi-canary-0123456789abcdefghijklmnop"


def free_port() -> int:
    """A port of the loopback address that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def cpu_image() -> str:
    """The real CPU image, built by `nimctl build cpu` on the lab's base; a second build is a few seconds."""
    env = private_environment(the_lab.environment("none"), Path.home())
    built = run_nimctl("build", "cpu", "--json", env=env, timeout=1500)
    assert built.code == 0, built.stderr[-3000:]
    return str(built.document["image"])


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The demo, started by `nimctl run` with keys in its caller's environment that it must not leak."""
    port = free_port()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True)))
        if why_no_lab() is None:
            request.getfixturevalue("cpu_image")
            env = private_environment(the_lab.environment("none"), home)
            address = bridge_address()
            runtime = "docker"
        else:
            env = {**private_environment(os.environ, home), "DOCKER_HOST": f"unix://{home}/none.sock"}
            address, runtime = "127.0.0.1", "process"
        env |= {"NGC_API_KEY": CANARY, "HF_TOKEN": CANARY}
        name = f"pages-{port}"
        words = ("--name", name, "--runtime", runtime, "--port", str(port), "--json")
        named = ("--env", f"NIM_ALLOWED_MEDIA_DOMAINS={address}")  # private: the operator must name it
        started = run_nimctl("run", "demo", *words, *named, env=env, timeout=600)
        assert started.code == 0, started.stderr[-3000:] + started.stdout[-3000:]
        stack.callback(run_nimctl, "stop", name, env=env, timeout=120)
        pictures = stack.enter_context(picture_server(address))
        yield Server(f"http://127.0.0.1:{port}", name, pictures, env)


def bridge_address() -> str:
    """The host's address on the lab's own bridge: the one place a container can fetch pictures from."""
    networks = json.loads(the_lab.docker("network", "inspect", "bridge").stdout)
    return str(networks[0]["IPAM"]["Config"][0]["Gateway"])

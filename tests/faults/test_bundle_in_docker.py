"""Bundles against a real registry and real engines: both image stores, kills, changed bytes, full disks, no way out."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Nimctl
from tests.lib import lab
from tests.lib.sealed_docker import sealed_docker

pytestmark = pytest.mark.lab
REPOSITORY = f"open/bundle-test-{os.getpid()}"
LAYER = 2_000_000


@pytest.fixture(scope="module")
def reference() -> str:
    """A small image of two files in a repository of its own, whose content no other test has."""
    lab.push_image(f"{REPOSITORY}:1", {"hello": b"x" + random.Random(os.getpid()).randbytes(LAYER), "two": b"2"})
    return f"{lab.registry_info().address}/{REPOSITORY}:1"


@pytest.fixture
def env(host: Callable[..., dict[str, str]]) -> dict[str, str]:
    return host("none")


@pytest.fixture
def forget(reference: str) -> Iterator[None]:
    yield
    for store in lab.STORES:
        lab.docker("image", "rm", "-f", reference, store=store)


def test_the_image_is_the_locked_one_in_containerds_store_and_for_plain_docker(
    nimctl: Nimctl, host: Callable[..., dict[str, str]], reference: str, forget: None, tmp_path: Path
) -> None:
    made = nimctl("bundle", "create", str(tmp_path / "b"), reference, "--json", env=host("none"))
    assert made.code == 0, made.stderr
    image = made.document["image"]
    sums = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "b", check=False)
    assert sums.returncode == 0
    before = lab.served(REPOSITORY)
    layer = max((tmp_path / "b/image/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = layer.read_bytes()
    layer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused = nimctl("bundle", "load", str(tmp_path / "b"), "--json", env=host("none", "containerd"))
    assert (refused.code, refused.error_id) == (9, "bundle-damaged")
    assert layer.name in str(refused.document["error"])
    assert _id_of(reference, "containerd") == ""  # nothing of it is named
    layer.write_bytes(content)
    loaded = nimctl("bundle", "load", str(tmp_path / "b"), "--json", env=host("none", "containerd"))
    assert loaded.code == 0, loaded.stderr
    assert loaded.document["id"] == image["manifest"] == _id_of(reference, "containerd")
    assert lab.served(REPOSITORY) == before  # nobody asked the registry
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(tmp_path / "b/image"), "-cf", str(archive), "."], check=True)
    lab.docker("load", "-i", archive)
    assert _id_of(reference, "classic") == image["config"]


def _id_of(reference: str, store: lab.Store) -> str:
    return lab.docker("image", "inspect", "-f", "{{.Id}}", reference, store=store).stdout.strip()


def test_what_is_locked_starts_where_no_packet_can_leave(nimctl: Nimctl, env: dict[str, str], reference: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sealed-", dir="/var/tmp", ignore_cleanup_errors=True) as place:
        lock, bundle = f"{place}/lock", f"{place}/b"
        assert nimctl("lock", reference, "--gpus", "none", "-o", lock, env=env).code == 0
        made = nimctl("bundle", "create", bundle, "--lock", lock, "--split", "1MiB", "--json", env=env)
        assert made.code == 0, made.stderr
        with sealed_docker(Path(place)) as host:
            inside = {**env, "DOCKER_HOST": f"unix://{host.socket}", "NIMCTL_GPUS": "none"}
            loaded = host.run([sys.executable, "-m", "nimctl", "bundle", "load", bundle, "--json"], inside)
            assert loaded.code == 0, loaded.stderr
            assert json.loads(loaded.stdout)["id"] == made.document["image"]["config"]
            words = ["run", "--locked", f"{bundle}/nimctl.lock", "--detach", "--json"]
            started = host.run([sys.executable, "-m", "nimctl", *words], inside)
            assert started.code == 0, started.stderr
            assert set(host.attempts().values()) == {0}
            assert host.left() == 0
            away = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
            assert host.run([sys.executable, "-c", away], inside).code != 0
            assert host.attempts()["OutNoRoutes"] == 1  # what would have left is counted


def test_a_kill_anywhere_costs_no_finished_byte(
    nimctl: Nimctl, env: dict[str, str], reference: str, tmp_path: Path
) -> None:
    words = ("bundle", "create", str(tmp_path / "b"), reference, "--json")
    before = lab.served(REPOSITORY)
    with lab.fault(REPOSITORY, rate=LAYER):
        argv = [sys.executable, "-m", "nimctl", *words]
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while _written(tmp_path / "b") < LAYER // 2 and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = _written(tmp_path / "b")
    assert kept >= LAYER // 2
    assert nimctl("bundle", "verify", str(tmp_path / "b"), "--json", env=env).error_id == "bundle-incomplete"
    made = nimctl(*words, env=env)
    assert made.code == 0, made.stderr
    assert made.document["moved"] <= made.document["bytes"] - kept + 4096
    assert (lab.served(REPOSITORY) - before).blobs_bytes < 2 * LAYER


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / ".nimctl-partial").glob("*.0"))

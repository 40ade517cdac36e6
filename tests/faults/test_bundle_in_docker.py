"""Bundles against a real registry and real engines: both image stores, kills, changed bytes, full disks, no way out."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Nimctl
from tests.lib import lab
from tests.lib.mounts import tmpfs

pytestmark = pytest.mark.lab
REPOSITORY = f"open/bundle-test-{os.getpid()}"
LAYER = 2_000_000


@pytest.fixture(scope="module")
def reference() -> str:
    """A small image of two files in a repository of its own, whose content no other test has."""
    lab.push_image(f"{REPOSITORY}:1", {"one": random.Random(os.getpid()).randbytes(LAYER), "two": b"2"})
    return f"{lab.registry_info().address}/{REPOSITORY}:1"


@pytest.fixture
def env(host: Callable[..., dict[str, str]]) -> dict[str, str]:
    return host("none")


@pytest.fixture
def forget(reference: str) -> Iterator[None]:
    yield
    for store in lab.STORES:
        lab.docker("image", "rm", "-f", reference, store=store)


def test_the_image_is_the_locked_one_in_both_stores(
    nimctl: Nimctl, host: Callable[..., dict[str, str]], reference: str, forget: None, tmp_path: Path
) -> None:
    made = nimctl("bundle", "create", str(tmp_path / "b"), reference, "--split", "1MiB", "--json", env=host("none"))
    assert made.code == 0, made.stderr
    image = made.document["image"]
    sums = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "b", check=False)
    assert sums.returncode == 0
    before = lab.served(REPOSITORY)
    wanted_ids: dict[lab.Store, str] = {"classic": image["config"], "containerd": image["manifest"]}
    for store, wanted in wanted_ids.items():
        loaded = nimctl("bundle", "load", str(tmp_path / "b"), "--json", env=host("none", store))
        assert loaded.code == 0, loaded.stderr
        assert loaded.document["id"] == wanted
        found = lab.docker("image", "inspect", "-f", "{{.Id}}", reference, store=store)
        assert found.stdout.strip() == wanted
    assert lab.served(REPOSITORY) == before  # nobody asked the registry
    made = nimctl("bundle", "create", str(tmp_path / "whole"), reference, "--json", env=host("none"))
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(tmp_path / "whole/image"), "-cf", str(archive), "."], check=True)
    lab.docker("image", "rm", "-f", reference)
    assert reference in lab.docker("load", "-i", archive).stdout  # plain docker takes the folder too


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


def test_a_disk_that_is_too_small_is_told_first(
    nimctl: Nimctl, env: dict[str, str], reference: str, tmp_path: Path
) -> None:
    before = lab.served(REPOSITORY)
    with tmpfs(tmp_path / "small", "size=1m") as place:
        done = nimctl("bundle", "create", str(place / "b"), reference, "--json", env=env)
    assert (done.code, done.error_id) == (9, "disk-full")
    assert (lab.served(REPOSITORY) - before).blobs_bytes < 10_000


def test_a_damaged_bundle_leaves_no_image(
    nimctl: Nimctl, env: dict[str, str], reference: str, forget: None, tmp_path: Path
) -> None:
    nimctl("bundle", "create", str(tmp_path / "b"), reference, env=env)
    layer = max((tmp_path / "b/image/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(layer.read_bytes())
    content[len(content) // 2] ^= 1
    layer.write_bytes(content)
    done = nimctl("bundle", "load", str(tmp_path / "b"), "--json", env=env)
    assert (done.code, done.error_id) == (9, "bundle-damaged")
    assert layer.name in str(done.document["error"])
    assert lab.docker("image", "inspect", reference).returncode != 0

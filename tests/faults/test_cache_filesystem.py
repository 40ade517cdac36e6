"""Fault: the filesystem below the cache is full, read-only or dead."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.errors import NimctlError
from tests.lib.users import needs_root

pytestmark = needs_root


@contextmanager
def mounted(place: Path, *options: str):
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(place)], check=False, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


def test_a_full_disk_is_found_by_the_probe(tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "nimctl-test") as folder:
        cache.probe_writable(folder)
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(b"x" * 10**6)
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "disk-full"
        assert "0.0 MiB are free" in caught.value.cause
        assert [p.name for p in folder.iterdir()] == ["filler"], "the probe leaves nothing behind"


def test_a_disk_without_inodes_is_full_as_well(tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m,nr_inodes=2", "nimctl-test") as folder:
        (folder / "filler").touch()
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "disk-full"


def test_a_read_only_mount_says_so(tmp_path):
    with mounted(tmp_path / "ro", "-t", "tmpfs", "-o", "size=1m,ro", "nimctl-test") as folder:
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "cache-not-writable"
        assert "mounted read-only" in caught.value.cause


def test_init_on_a_full_disk_says_so(tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m,nr_inodes=2", "nimctl-test") as folder:
        with pytest.raises(NimctlError) as caught:
            cache.apply_init(folder)
        assert caught.value.id == "disk-full"


@pytest.fixture
def dead_mount(tmp_path):
    """A FUSE mount whose server never answers, like a network mount whose server is gone."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"FUSE is not possible here: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    place = tmp_path / "dead"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "nimctl-test", str(place)],
        check=False,
        capture_output=True,
        text=True,
        pass_fds=[device],
        timeout=30,
    )
    try:
        if done.returncode:
            pytest.skip(f"FUSE is not possible here: {done.stderr.strip()}")
        yield place
    finally:
        os.close(device)  # ends the connection, which frees the thread that waits in the kernel
        subprocess.run(["umount", "--lazy", str(place)], check=done.returncode == 0, timeout=30)


def test_a_dead_mount_does_not_hang_the_probe(dead_mount):
    with pytest.raises(NimctlError) as caught:
        cache.probe_writable(dead_mount, timeout=0.5)
    assert caught.value.id == "cache-unreachable"
    assert "findmnt" in caught.value.fix

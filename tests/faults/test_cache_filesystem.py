"""Fault: the filesystem below the cache is full, read-only or dead."""

import pytest

from nimctl.core import cache
from nimctl.core.errors import NimctlError
from tests.lib.mounts import dead, tmpfs
from tests.lib.users import needs_root

pytestmark = needs_root


def test_a_full_disk_is_found_by_the_probe(tmp_path):
    with tmpfs(tmp_path / "small", "size=64k") as folder:
        cache.probe_writable(folder)
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(b"x" * 10**6)
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "disk-full"
        assert "0.0 MiB are free" in caught.value.cause
        assert [p.name for p in folder.iterdir()] == ["filler"], "the probe leaves nothing behind"


def test_a_disk_without_inodes_is_full_as_well(tmp_path):
    with tmpfs(tmp_path / "small", "size=1m,nr_inodes=2") as folder:
        (folder / "filler").touch()
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "disk-full"


def test_a_read_only_mount_says_so(tmp_path):
    with tmpfs(tmp_path / "ro", "size=1m,ro") as folder:
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder)
        assert caught.value.id == "cache-not-writable"
        assert "mounted read-only" in caught.value.cause


def test_init_on_a_full_disk_says_so(tmp_path):
    with tmpfs(tmp_path / "small", "size=1m,nr_inodes=2") as folder:
        with pytest.raises(NimctlError) as caught:
            cache.apply_init(folder)
        assert caught.value.id == "disk-full"


def test_a_dead_mount_does_not_hang_the_probe(tmp_path):
    with dead(tmp_path / "dead") as folder:
        with pytest.raises(NimctlError) as caught:
            cache.probe_writable(folder, timeout=0.5)
        assert caught.value.id == "cache-unreachable"
        assert "findmnt" in caught.value.fix

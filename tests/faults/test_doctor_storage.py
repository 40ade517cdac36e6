"""Fault: the disk is full, or what lies in the cache is closed to the container's user."""

import os
import subprocess
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.recipes import load
from nimctl.doctor.model import Needs
from nimctl.doctor.observe.storage import look_at_cache, look_into_cache
from nimctl.doctor.runner import Report, errors, run_checks
from tests.lib.users import as_user, needs_root, open_folder
from tests.unit.doctor.hosts import host

pytestmark = needs_root

FAR = float("inf")
NEEDS = Needs(load("demo"), gpus="none", uid=12345)


def judged(folder: Path) -> Report:
    """What the doctor says of a real folder on a host that is otherwise well."""
    inside = look_into_cache(folder, FAR)
    parts = {
        "entries_seen": inside.entries_seen,
        "entries_bytes": inside.entries_bytes,
        "unreadable_entries": inside.unreadable_entries,
        "unwritable_entries": inside.unwritable_entries,
    }
    facts = host(cache=look_at_cache(folder))
    return run_checks(host(facts, cache=parts), NEEDS, only=["storage"])


def only_error(report: Report):
    assert len(report.failures) == 1
    return errors(report)


@pytest.fixture
def folder():
    with open_folder() as path:
        yield path / "cache"


def test_a_weight_file_of_mode_0600_is_found_before_the_container_and_mended_by_cache_init(folder):
    cache.apply_init(folder)
    weights = folder / "huggingface" / "hub" / "models--a--b" / "snapshots" / "1" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    weights.chmod(0o600)
    error = only_error(judged(folder))
    assert (error.id, error.exit_code) == ("weights-unreadable", 6)
    assert str(weights.relative_to(folder)) in error.evidence[0]
    assert f"nimctl cache init {folder}" in error.fix
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(weights.read_bytes)

    cache.apply_init(folder)
    assert judged(folder).exit_code == 0
    assert as_user(weights.read_bytes) == b"weights"


@pytest.mark.parametrize(("owner", "mode"), [((0, 4242), 0o755), ((0, 0), 0o700), ((4242, 4242), 0o770)])
def test_a_folder_that_uid_0_cannot_write_is_refused_and_really_cannot_be_written(folder, owner, mode):
    folder.mkdir()
    os.chown(folder, *owner)
    folder.chmod(mode)
    error = only_error(judged(folder))
    assert (error.id, error.exit_code) == ("cache-not-writable", 9)
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user((folder / "new").touch)

    cache.apply_init(folder)
    assert judged(folder).exit_code == 0
    as_user((folder / "new").touch)


def test_the_page_s_chmod_works_and_is_warned_about(folder):
    folder.mkdir()
    os.chown(folder, 4242, 4242)
    subprocess.run(["chmod", "-R", "a+rwxt", folder], check=True)
    report = judged(folder)
    assert [f.id for f in report.findings if f.verdict == "warn"] == ["cache-sticky", "cache-not-shared"]
    as_user((folder / "new").touch)


def test_a_full_disk(folder):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=2770,gid=0", "tmpfs", folder], check=True)
    try:
        error = only_error(judged(folder))
        assert (error.id, error.exit_code) == ("disk-full", 9)
        assert "1.0 MiB free" in error.message
        assert f"df -h {folder}" in error.fix
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_without_inodes(folder):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=20,mode=2770,gid=0", "tmpfs", folder], check=True)
    try:
        error = only_error(judged(folder))
        assert error.id == "disk-full"
        assert "inodes" in error.message
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_disk(folder):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=2770,gid=0", "tmpfs", folder], check=True)
    try:
        error = only_error(judged(folder))
        assert error.id == "cache-not-writable"
        assert "read-only" in error.cause
    finally:
        subprocess.run(["umount", folder], check=True)

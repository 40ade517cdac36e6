"""Fault: the disk is full, odd or dead, or what lies in the cache is closed to the container's user."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.facts import DiskFacts
from nimctl.core.recipes import load
from nimctl.doctor.model import Needs
from nimctl.doctor.observe.storage import look_at_cache, look_into_cache
from nimctl.doctor.observe.writing import try_to_write
from nimctl.doctor.runner import Report, errors, run_checks
from tests.lib.mounts import mounted, tmpfs
from tests.lib.users import as_user, needs_root, open_folder
from tests.unit.doctor.hosts import host

pytestmark = needs_root

FAR = float("inf")
NEEDS = Needs(load("demo"), gpus="none", uid=12345)


def judged(folder: Path) -> Report:
    """What the doctor says of a real folder on a host that is otherwise well."""
    inside = look_into_cache(folder, FAR, 12345)
    parts = {
        "entries_seen": inside.entries_seen,
        "entries_bytes": inside.entries_bytes,
        "unreadable_entries": inside.unreadable_entries,
        "unwritable_entries": inside.unwritable_entries,
        "write_test": try_to_write(folder, 12345, time.monotonic() + 60),
    }
    facts = host(cache=look_at_cache(folder))
    return run_checks(host(facts, cache=parts), NEEDS, only=["storage"])


def warnings(report: Report) -> list[str]:
    return [f.id for f in report.findings if f.verdict == "warn"]


def only_error(report: Report):
    assert len(report.failures) == 1
    return errors(report)


@pytest.fixture
def folder():
    with open_folder() as path:
        yield path / "cache"


def test_a_weight_file_of_mode_0600_is_found_before_the_container_and_mended_by_cache_init(folder):
    cache.apply_init(folder)
    weights = folder / "huggingface" / "hub" / "models--nimctl--demo" / "snapshots" / "1" / "model.safetensors"
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


def test_a_disk_that_is_too_small(folder):
    with tmpfs(folder, "size=1m,mode=2770,gid=0"):
        error = only_error(judged(folder))
        assert (error.id, error.exit_code) == ("disk-full", 9)
        assert "1.0 MiB free" in error.message
        assert f"df -h {folder}" in error.fix


def test_a_disk_without_a_free_block_is_full_and_not_closed(folder):
    with tmpfs(folder, "size=64k,mode=2770,gid=0"):
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(b"x" * 10**6)
        error = only_error(judged(folder))
        assert error.id == "disk-full"
        assert "No space left on device" in error.cause
        assert [p.name for p in folder.iterdir()] == ["filler"], "the test leaves nothing behind"


def test_a_disk_with_few_inodes(folder):
    with tmpfs(folder, "nr_inodes=20,mode=2770,gid=0"):
        error = only_error(judged(folder))
        assert error.id == "disk-full"
        assert "inodes" in error.message


def test_a_disk_without_a_free_inode(folder):
    with tmpfs(folder, "nr_inodes=2,mode=2770,gid=0"):
        (folder / "filler").touch()
        error = only_error(judged(folder))
        assert error.id == "disk-full"
        assert "No space left on device" in error.cause


def test_a_read_only_disk(folder):
    with tmpfs(folder, "ro,mode=2770,gid=0"):
        error = only_error(judged(folder))
        assert error.id == "cache-not-writable"
        assert "read-only" in error.cause


@pytest.mark.parametrize(("options", "told"), [("exec", []), ("noexec,nosuid,nodev", ["cache-noexec"])])
def test_options_of_the_mount(folder, options, told):
    with tmpfs(folder, f"size=200m,mode=2770,gid=0,{options}"):
        report = judged(folder)
        assert report.exit_code == 0
        assert warnings(report) == ["cache-in-memory", *told]


def test_a_disk_of_its_own_is_silent(folder, tmp_path):
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(300 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "2000", image], check=True)
    with mounted(folder, "-o", "loop", str(image)):
        cache.apply_init(folder)
        report = judged(folder)
        assert [(f.check, f.verdict) for f in report.findings if f.verdict not in ("pass", "skip")] == []
        (disk,) = [f for f in report.findings if f.check == "cache-filesystem"]
        assert "ext4" in disk.title


@contextmanager
def unserved(place: Path, options: str) -> Iterator[Path]:
    """A FUSE mount whose server never answers."""
    place.mkdir(exist_ok=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        given = f"fd={device},rootmode=40000,{options}"
        with mounted(place, "-i", "-t", "fuse", "-o", given, "nimctl-test", pass_fds=(device,)):
            try:
                yield place
            finally:
                os.close(device)  # ends the connection, which frees whoever waits in the kernel
                device = -1
    finally:
        if device >= 0:
            os.close(device)


def test_a_filesystem_that_hangs_does_not_hold_up_the_test(folder):
    with unserved(folder, "user_id=0,group_id=0,allow_other"):
        test = try_to_write(folder, 12345, time.monotonic() + 0.5)
    assert test is not None
    assert (test.ok, test.detail) == (None, "the filesystem did not answer in time")


def test_a_fuse_mount_of_another_user_is_closed_to_root_too(folder):
    with unserved(folder, "user_id=4242,group_id=4242"):
        test = try_to_write(folder, 12345, time.monotonic() + 60)
        assert (test.ok, test.detail) == (False, "Permission denied")
        seen = look_at_cache(folder)
        assert (seen.exists, seen.problem) == (None, f"{folder}: Permission denied")
        report = run_checks(host(host(cache=seen), system={"uid": 0}), NEEDS, only=["cache"])
        error = only_error(report)
        assert error.id == "cache-not-writable"
        assert "allow_other" in error.fix


def test_a_fuse_mount_for_one_user_is_found_by_that_user(folder):
    """His own look at it succeeds, and says nothing about the container's user."""
    with unserved(folder, "user_id=4242,group_id=4242"):
        options = DiskFacts(str(folder), "fuse.sshfs", options=("user_id=4242", "group_id=4242"))
        facts = host(cache={"disk": options, "write_test": None})
        assert only_error(run_checks(facts, NEEDS, only=["cache-filesystem"])).id == "cache-not-writable"
        with pytest.raises(AssertionError, match="PermissionError"):
            as_user((folder / "new").touch)
        shown = replace(options, options=(*options.options, "allow_other"))
        assert run_checks(host(facts, cache={"disk": shown}), NEEDS, only=["cache-filesystem"]).exit_code == 0


def test_what_a_killed_test_leaves_is_removed(folder, monkeypatch):
    """The child is killed after its file was made: a shell in its place makes the file and kills itself."""
    cache.apply_init(folder)
    monkeypatch.setattr("nimctl.doctor.observe.writing._SCRIPT", ': > "$1/$2"; kill -9 $$')
    test = try_to_write(folder, 12345, time.monotonic() + 60)
    assert test.ok is None
    deadline = time.monotonic() + 30
    while any(p.name.startswith(".nimctl") for p in folder.iterdir()) and time.monotonic() < deadline:
        os.sched_yield()
    assert sorted(p.name for p in folder.iterdir()) == ["engine", "huggingface"]

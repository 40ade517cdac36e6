"""Fault: the cache folder does not let the container's user write."""

import os
import subprocess
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.errors import NimctlError
from tests.lib.users import as_user, needs_root, open_folder

pytestmark = needs_root


@pytest.fixture
def folder():
    with open_folder() as path:
        yield path / "cache"


def probe(root: Path) -> None:
    cache.probe_writable(root, timeout=10)


def test_a_folder_of_root_is_refused_with_owner_mode_and_both_ways_out(folder):
    folder.mkdir(mode=0o755)
    os.chown(folder, 0, 4242)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: probe(folder))
    error = caught.value
    assert error.id == "cache-not-writable"
    assert "uid 0, group 4242, mode 0755" in error.cause
    assert "12345:0" in error.cause
    assert "nimctl cache init" in error.fix
    assert f"chgrp -R 0 {folder}" in error.fix
    assert list(folder.iterdir()) == []


def test_after_init_any_uid_of_group_0_can_write_and_replace_what_others_left(folder):
    cache.apply_init(folder)
    as_user(lambda: probe(folder), uid=12345)
    as_user(lambda: cache.make_shared_folder(folder / "huggingface/hub/models--a--b"), uid=12345)
    shared = folder / "huggingface/hub/models--a--b"
    as_user(lambda: (shared / "file").write_text("first"), uid=12345)
    as_user(lambda: (shared / "new").write_text("second"), uid=54321)
    as_user(lambda: (shared / "new").replace(shared / "file"), uid=54321)
    as_user((shared / "file").unlink, uid=999)
    assert list(shared.iterdir()) == []


def test_without_group_0_the_error_says_so(folder):
    cache.apply_init(folder)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: probe(folder), gid=12345)
    assert caught.value.id == "cache-not-writable"
    assert "--user UID:0" in caught.value.fix


def test_the_sticky_bit_keeps_users_apart_until_init_removes_it(folder):
    folder.mkdir()
    subprocess.run(["chmod", "-R", "a+rwxt", folder], check=True)
    as_user(lambda: (folder / "file").write_text("first"), uid=12345)
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user((folder / "file").unlink, uid=54321)
    cache.apply_init(folder)
    as_user((folder / "file").unlink, uid=54321)


def test_init_without_root_gives_the_commands_and_changes_nothing(folder):
    folder.mkdir(mode=0o755)
    (folder / "weights").write_text("x")
    (folder / "weights").chmod(0o600)
    os.chown(folder, 12345, 12345)
    os.chown(folder / "weights", 12345, 12345)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: cache.apply_init(folder), gid=12345)
    assert caught.value.id == "cache-not-writable"
    assert (folder.stat().st_gid, folder.stat().st_mode & 0o7777) == (12345, 0o755)
    assert [p.name for p in folder.iterdir()] == ["weights"]
    commands = caught.value.fix.removeprefix("As an administrator: ")
    # The commands are typed as they stand (sudo is of no use to root) and must leave nothing to do but the subfolders.
    subprocess.run(["bash", "-ec", commands.replace("sudo ", "")], check=True, timeout=30)
    assert {a.kind for a in cache.plan_init(folder)} <= {"mkdir"}
    assert (folder / "weights").stat().st_mode & 0o777 == 0o660
    as_user(lambda: probe(folder), uid=54321)


def test_the_printed_commands_leave_private_engine_caches_alone(folder):
    cache.apply_init(folder)
    private = as_user(lambda: cache.CachePaths(folder).engine_private("key"))
    os.chown(folder, 0, 4242)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: cache.apply_init(folder), gid=4242)
    commands = caught.value.fix.removeprefix("As an administrator: ")
    subprocess.run(["bash", "-ec", commands.replace("sudo ", "")], check=True, timeout=30)
    assert [private.stat().st_mode & 0o7777, private.parent.stat().st_mode & 0o7777] == [0o700, 0o700]


def test_a_member_of_group_0_who_owns_the_folder_needs_no_root(folder):
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 4242)
    report = as_user(lambda: cache.apply_init(folder))
    assert (report.made, report.regrouped, report.remoded) == (3, 1, 1)
    as_user(lambda: probe(folder), uid=54321)


def test_a_missing_folder_says_so(folder):
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: probe(folder))
    assert caught.value.id == "cache-not-writable"
    assert "does not exist" in caught.value.cause


def test_a_file_in_the_folders_place_says_so(folder):
    folder.write_text("x")
    with pytest.raises(NimctlError) as caught:
        probe(folder)
    assert caught.value.id == "cache-not-writable"
    assert "not a folder" in caught.value.cause


def test_an_unwritable_hub_below_a_writable_root_is_found(folder):
    cache.apply_init(folder)
    (folder / "huggingface/hub").chmod(0o755)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: probe(folder))
    assert caught.value.id == "cache-not-writable"
    assert "huggingface/hub belongs to" in caught.value.cause

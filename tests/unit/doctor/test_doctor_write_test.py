"""The write test does as the container's user would, says what was refused and where, and leaves nothing behind."""

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from nimctl.core.facts import WriteTest
from nimctl.doctor.observe.storage import look_at_cache, look_into_cache
from nimctl.doctor.observe.writing import try_to_write
from tests.lib.users import as_user, needs_root, open_folder

UID = 12345


def later():
    return time.monotonic() + 60


def tried(folder: Path, uid: int = UID) -> WriteTest:
    before = listed(folder)
    test = try_to_write(folder, uid, later())
    assert test is not None
    assert listed(folder) == before, "the test leaves nothing behind"
    return test


def listed(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture
def folder():
    """A cache as `cache init` makes it, in a folder that every user may enter."""
    with open_folder() as parent:
        cache = parent / "cache"
        shared(cache)
        yield cache


def shared(folder: Path, mode: int = 0o2770) -> Path:
    folder.mkdir(exist_ok=True)
    os.chown(folder, 0, 0)
    folder.chmod(mode)
    return folder


def test_what_is_no_folder_is_not_tried(tmp_path):
    (tmp_path / "file").touch()
    assert try_to_write(tmp_path / "missing", UID, later()) is None
    assert try_to_write(tmp_path / "file", UID, later()) is None


@needs_root
def test_any_user_of_group_0_can_write_in_a_shared_folder(folder):
    for uid in (UID, 777):
        assert tried(folder, uid) == WriteTest(uid, 0, ok=True, as_root=True)


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "ok"),
    [
        ((UID, 4242), 0o700, True),
        ((4242, 0), 0o770, True),
        ((4242, 0), 0o750, False),
        ((4242, 0), 0o707, False),  # the group's bits count, not others'
        ((4242, 4242), 0o770, False),
        ((4242, 4242), 0o1777, True),  # a sticky bit keeps nobody from his own file
        ((UID, 0), 0o570, False),  # the owner's bits count, not the group's
    ],
)
def test_owner_and_mode(folder, owner, mode, ok):
    os.chown(folder, *owner)
    folder.chmod(mode)
    test = tried(folder)
    assert test.ok is ok
    if not ok:
        assert (test.step, test.folder, test.detail, test.as_root) == ("make", ".", "Permission denied", True)


@needs_root
def test_folders_above_are_not_asked_because_only_the_cache_is_mounted(folder):
    folder.parent.chmod(0o700)
    assert tried(folder).ok is True


@needs_root
@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        ("huggingface/hub", "huggingface/hub"),
        ("huggingface", "huggingface"),
        ("ngc/hub", "ngc/hub"),
        ("engine", "engine"),
        (f"engine/{UID}", f"engine/{UID}"),
        ("engine/777", None),  # another user's
    ],
)
def test_the_folders_that_a_run_writes_in_are_tried_as_well(folder, closed, expected):
    for name in ("huggingface", "huggingface/hub", "ngc", "ngc/hub", "engine", f"engine/{UID}", "engine/777"):
        shared(folder / name)
    assert tried(folder).ok is True
    shared(folder / closed, 0o700)
    test = tried(folder)
    assert (test.ok, test.folder) == (expected is None, expected)


@needs_root
def test_a_link_leads_elsewhere_and_is_left_alone(folder):
    elsewhere = shared(folder.parent / "elsewhere", 0o755)
    (elsewhere / "hub").mkdir()
    (folder / "huggingface").symlink_to(elsewhere)
    assert tried(folder).ok is True


@needs_root
def test_names_with_spaces_and_signs(folder):
    odd = shared(folder / "a b'\"$(touch x);*")
    assert tried(odd).ok is True


@needs_root
def test_an_ordinary_user_tries_as_himself_if_he_has_group_0(folder):
    def as_me() -> WriteTest | None:
        return try_to_write(folder, UID, later())

    assert as_user(as_me) == WriteTest(UID, 0, ok=True)
    folder.chmod(0o2750)
    refused = as_user(as_me)
    assert (refused.ok, refused.detail, refused.as_root) == (False, "Permission denied", None)
    for other in (as_user(as_me, gid=UID), as_user(lambda: try_to_write(folder, 777, later()))):
        assert other.ok is None
        assert "only root can try" in other.detail


@needs_root
def test_a_folder_that_this_user_cannot_reach_says_so(folder):
    folder.parent.chmod(0o700)
    test = as_user(lambda: try_to_write(folder, UID, later()))
    assert test.ok is None
    assert "cannot reach" in test.detail


@needs_root
def test_attributes_go_before_modes(folder):
    if subprocess.run(["chattr", "+i", folder], check=False, capture_output=True).returncode:
        pytest.skip("this filesystem has no attributes")
    try:
        test = tried(folder)
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)
    assert (test.ok, test.step, test.detail, test.as_root) == (False, "make", "Operation not permitted", False)


# Access lists, as the kernel keeps them: (tag, permissions, id)

OWNER, GROUP, MASK, OTHER = ((0x01, 7, -1), (0x04, 7, -1), (0x10, 7, -1), (0x20, 0, -1))


def set_acl(folder: Path, kind: str, *entries: tuple[int, int, int]) -> None:
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xFFFFFFFF) for t, p, i in entries)
    try:
        os.setxattr(folder, f"system.posix_acl_{kind}", raw)
    except OSError as error:
        pytest.skip(f"this filesystem takes no access lists: {error.strerror}")


def named(tag: int, perms: int, owner: int) -> tuple[int, int, int]:
    return (tag, perms, owner)


USER, NAMED_GROUP = 0x02, 0x08


@needs_root
@pytest.mark.parametrize(
    ("gid", "entries", "writable"),
    [
        (0, (OWNER, GROUP, MASK, OTHER), True),
        (0, (OWNER, GROUP, (0x10, 5, -1), OTHER), False),  # the mask takes it away
        # The mode shows the mask, which somebody else's entry has widened: rwx for a group that may only read.
        (0, (OWNER, named(USER, 7, 4242), (0x04, 5, -1), MASK, OTHER), False),
        (4242, (OWNER, GROUP, named(NAMED_GROUP, 7, 0), MASK, OTHER), True),
        (4242, (OWNER, GROUP, named(NAMED_GROUP, 5, 0), MASK, (0x20, 7, -1)), False),  # others' bits do not count
        (4242, (OWNER, GROUP, MASK, (0x20, 7, -1)), True),
    ],
)
def test_access_lists_are_read_as_the_kernel_reads_them(folder, gid, entries, writable):
    os.chown(folder, 0, gid)
    set_acl(folder, "access", *entries)
    seen = look_at_cache(folder)
    assert seen.acl is True
    assert seen.group_writable is writable
    assert tried(folder).ok is writable


@needs_root
@pytest.mark.parametrize("perms", [7, 5])
def test_a_default_access_list_decides_what_becomes_of_new_folders(folder, perms):
    assert look_at_cache(folder).default_acl is False
    set_acl(folder, "default", OWNER, (0x04, perms, -1), MASK, OTHER)
    seen = look_at_cache(folder)
    assert (seen.acl, seen.default_acl, seen.default_acl_writable) == (False, True, perms == 7)
    as_user((folder / "new").mkdir, uid=777)
    assert tried(folder / "new").ok is (perms == 7)
    unwritable = [entry.path for entry in look_into_cache(folder, later(), 1000).unwritable_entries]
    assert unwritable == ([] if perms == 7 else ["new"])

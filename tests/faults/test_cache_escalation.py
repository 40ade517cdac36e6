"""Fault: somebody who may write in the cache puts things there that `sudo nimctl cache init` must not bless."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.errors import NimctlError
from tests.lib.users import as_user, needs_root, open_folder

pytestmark = needs_root
USER = 4242


@pytest.fixture
def place():
    with open_folder() as path:
        cache.apply_init(path / "cache")
        yield path


def looks(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def given(path: Path, mode: int, user: int = USER) -> Path:
    """A file of another user with this mode."""
    path.write_text("x")
    os.chown(path, user, user)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("before", "after"), [(0o2755, 0o775), (0o4755, 0o775), (0o6711, 0o771), (0o2644, 0o664), (0o7600, 0o660)]
)
def test_no_file_keeps_a_bit_that_lends_its_rights(place, before, after):
    file = given(place / "cache/program", before)
    cache.apply_init(place / "cache")
    assert looks(file) == (USER, 0, after)


def test_a_setgid_bit_goes_even_where_the_group_is_right(place):
    file = given(place / "cache/program", 0o755)
    os.chown(file, USER, 0)
    file.chmod(0o2775)
    cache.apply_init(place / "cache")
    assert looks(file) == (USER, 0, 0o775)


def test_a_users_setgid_program_does_not_get_group_0(place):
    program = place / "cache/id"
    shutil.copy(shutil.which("id"), program)
    os.chown(program, USER, USER)
    program.chmod(0o2755)

    def run() -> str:
        return subprocess.run([program, "-g"], capture_output=True, text=True, check=True).stdout.strip()

    place.joinpath("cache").chmod(0o2775)  # the attacker may enter
    assert as_user(run, uid=999, gid=999) == str(USER), "the bit works on this filesystem"
    cache.apply_init(place / "cache")
    place.joinpath("cache").chmod(0o2775)
    assert as_user(run, uid=999, gid=999) == "999"


@pytest.mark.parametrize("owner", [0, USER])
def test_a_hard_link_to_a_file_outside_changes_nothing_and_is_told(place, owner):
    victim = given(place / "private", 0o600, owner)
    os.chown(victim, owner, USER)
    os.link(victim, place / "cache/weights")
    report = cache.apply_init(place / "cache")
    assert looks(victim) == (owner, USER, 0o600)
    assert (report.skipped, report.regrouped, report.remoded) == (1, 0, 0)
    assert report.summary.startswith("nothing to change") and "1 files left alone" in report.summary
    assert report.to_json()["skipped"] == 1


def test_hard_links_inside_the_cache_are_repaired_like_any_file(place):
    first = given(place / "cache/first", 0o600)
    os.link(first, place / "cache/huggingface/second")
    report = cache.apply_init(place / "cache")
    assert looks(first) == looks(place / "cache/huggingface/second") == (USER, 0, 0o660)
    assert report.skipped == 0


@pytest.mark.parametrize("trick", ["symbolic link", "another file", "hard link", "second name"])
def test_a_file_that_is_swapped_after_it_was_examined_changes_nothing(place, monkeypatch, trick):
    file, victim = given(place / "cache/file", 0o600), given(place / "victim", 0o600, 0)
    real = cache.init._apply

    def swap_then_apply(root, action):
        if trick == "second name":
            if not (place / "outside").exists():
                os.link(file, place / "outside")
        else:
            file.unlink(missing_ok=True)
            {
                "symbolic link": lambda: file.symlink_to(victim),
                "another file": lambda: shutil.copy2(victim, file),
                "hard link": lambda: os.link(victim, file),
            }[trick]()
        real(root, action)

    monkeypatch.setattr(cache.init, "_apply", swap_then_apply)
    with pytest.raises(NimctlError) as caught:
        cache.apply_init(place / "cache")
    assert caught.value.id == "cache-not-writable"
    assert looks(victim) == (0, 0, 0o600)
    if trick != "symbolic link":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_commands_for_an_administrator_bless_nothing_either(place):
    root = place / "cache"
    program, victim = given(root / "program", 0o2755), given(place / "private", 0o600)
    os.link(victim, root / "weights")
    os.chown(root, USER, USER)
    root.chmod(0o755)
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: cache.apply_init(root), gid=999)
    commands = caught.value.fix.removeprefix("As an administrator: ")
    subprocess.run(["bash", "-ec", commands.replace("sudo ", "")], check=True, timeout=30)
    assert looks(program) == (USER, 0, 0o775)
    assert looks(victim) == (USER, USER, 0o600)

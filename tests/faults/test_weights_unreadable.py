"""Fault: the container's user may not read a checkpoint folder. The engine would call its files missing."""

import os

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import fetch
from tests.lib.checkpoints import write_folder
from tests.lib.users import as_user, needs_root, open_folder

pytestmark = needs_root


@pytest.fixture
def folder():
    with open_folder() as path:
        yield write_folder(path / "model")


def failure(folder) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        as_user(lambda: fetch(str(folder), folder.parent))
    assert caught.value.exit_code == 6
    return caught.value


def cure(error: NimctlError) -> None:
    """Type the command that the error gives."""
    command = error.fix.removeprefix("On the host, as the owner or with sudo: ")
    assert os.system(command) == 0, command


def test_a_file_of_mode_0600_is_named_with_its_owner_and_the_cure_works(folder):
    file = folder / "model-00002-of-00002.safetensors"
    file.chmod(0o600)
    error = failure(folder)
    assert error.id == "weights-unreadable"
    assert str(file) in error.message
    assert "mode 0600 and belongs to 0:0" in error.cause
    assert "12345:0" in error.cause
    cure(error)
    assert as_user(lambda: fetch(str(folder), folder.parent)) == folder


def test_every_unreadable_file_is_counted_and_listed(folder):
    for file in folder.glob("*.safetensors"):
        file.chmod(0o600)
    error = failure(folder)
    assert "and 1 more" in error.message
    assert len(error.evidence) == 2


@pytest.mark.parametrize("mode", [0o700, 0o744, 0o711])
def test_the_folder_itself(folder, mode):
    folder.chmod(mode)
    error = failure(folder)
    assert error.id == "weights-unreadable"
    assert f"{folder} has mode {mode:04o}" in error.cause
    cure(error)
    assert as_user(lambda: fetch(str(folder), folder.parent)) == folder


def test_a_folder_above(folder):
    folder.parent.chmod(0o700)
    error = failure(folder)
    assert error.id == "weights-unreadable"
    assert f"{folder.parent} has mode 0700" in error.cause
    assert error.fix.endswith(f"chmod a+rX {folder.parent}"), "nothing below the closed folder has to change"
    cure(error)
    assert as_user(lambda: fetch(str(folder), folder.parent)) == folder


@pytest.mark.parametrize("place", ["blobs", "elsewhere"])
def test_files_behind_links(folder, place):
    (folder.parent / place).mkdir()
    for link in folder.glob("*.safetensors"):
        link.rename(folder.parent / place / link.name)
        link.symlink_to(f"../{place}/{link.name}")
        link.chmod(0o600)
    error = failure(folder)
    assert error.id == "weights-unreadable"
    assert f"{place}/model-00001-of-00002.safetensors has mode 0600" in error.cause
    cure(error)
    assert as_user(lambda: fetch(str(folder), folder.parent)) == folder


def test_a_closed_folder_behind_links(folder):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    link = folder / "config.json"
    link.rename(blobs / "abc")
    link.symlink_to("../blobs/abc")
    blobs.chmod(0o700)
    error = failure(folder)
    assert f"{blobs} has mode 0700" in error.cause
    cure(error)
    assert as_user(lambda: fetch(str(folder), folder.parent)) == folder

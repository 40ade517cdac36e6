"""Key files: private, readable in the container, gone afterwards, and nothing else touched."""

import os
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch import secrets as staging

KEYS = {"HF_TOKEN": Secret("hf_0123456789")}


def test_modes_group_and_content(tmp_path: Path) -> None:
    folder = tmp_path / "nimctl" / "demo"
    staging.stage(folder, KEYS)
    file = folder / "HF_TOKEN"
    assert file.read_text() == "hf_0123456789"
    assert oct(file.stat().st_mode & 0o777) == "0o440"
    assert file.stat().st_uid == os.geteuid()
    if os.geteuid() == 0:
        assert file.stat().st_gid == 0
    for path in (folder, folder.parent):
        assert oct(path.stat().st_mode & 0o777) == "0o700"


def test_staging_again_replaces_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "nimctl" / "demo"
    staging.stage(folder, KEYS)
    staging.stage(folder, {"HF_TOKEN": Secret("new")})
    assert (folder / "HF_TOKEN").read_text() == "new"


def test_removing_takes_the_keys_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "nimctl" / "demo"
    staging.stage(folder, KEYS)
    (folder / "notes.txt").write_text("mine")
    staging.remove(folder)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    staging.remove(folder)
    assert not folder.parent.exists()
    staging.remove(folder)


def test_a_link_or_a_folder_others_may_write_to_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "nimctl").mkdir(mode=0o700)
    (tmp_path / "nimctl" / "demo").symlink_to(elsewhere)
    with pytest.raises(NimctlError) as caught:
        staging.stage(tmp_path / "nimctl" / "demo", KEYS)
    assert caught.value.id == "config-invalid"
    assert list(elsewhere.iterdir()) == []
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(NimctlError):
        staging.stage(open_to_all / "demo", KEYS)


def test_where_keys_are_staged(tmp_path: Path) -> None:
    assert staging.staging_dir({"XDG_RUNTIME_DIR": str(tmp_path)}, 1000) == tmp_path / "nimctl"
    assert staging.staging_dir({"XDG_RUNTIME_DIR": str(tmp_path / "no")}, 1000) == Path("/dev/shm/nimctl-1000")
    assert staging.staging_dir({}, 0) == Path("/dev/shm/nimctl-0")

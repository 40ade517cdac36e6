"""Key files: private, readable in the container, gone afterwards, and nothing else touched."""

import os
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch import secrets as staging
from nimctl.launch.model import LaunchPlan
from tests.unit.launch.launch_hosts import gpus, host, plan

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


def planned(base: Path, name: str = "kimi") -> LaunchPlan:
    made = plan("kimi-k2.5", host(*gpus(8), hook=True), name=name, secrets_present=("HF_TOKEN",), secrets_dir=base)
    assert [s.source for s in made.secrets] == [str(base / name / "HF_TOKEN")]
    return made


def test_keys_of_runs_that_are_gone_are_swept_when_one_starts(tmp_path: Path) -> None:
    base = tmp_path / "nimctl"
    staging.stage(base / "gone", KEYS, "docker here")
    staging.stage(base / "alive", KEYS, "docker here")
    staging.stage(base / "elsewhere", KEYS, "docker there")
    staging.stage(base / "process", KEYS, "process /runs")
    (base / "mine").mkdir()
    with staging.keys_for(planned(base), KEYS, "docker here", lambda: {"alive"}) as folder:
        assert folder == base / "kimi"
    assert sorted(p.name for p in base.iterdir()) == ["alive", "elsewhere", "kimi", "mine", "process"]


def test_a_run_that_is_about_to_come_is_not_taken_for_gone(tmp_path: Path) -> None:
    base = tmp_path / "nimctl"
    staging.stage(base / "gone", KEYS, "docker here")
    with staging.keys_for(planned(base, "first"), KEYS, "docker here", lambda: {"gone"}):
        staging.sweep(base, "docker here", set)
        assert (base / "first" / "HF_TOKEN").exists()
    staging.sweep(base, "docker here", lambda: {"first"})
    assert [p.name for p in base.iterdir()] == ["first"]


def test_a_start_that_fails_takes_its_keys_with_it(tmp_path: Path) -> None:
    base = tmp_path / "nimctl"
    with pytest.raises(KeyboardInterrupt), staging.keys_for(planned(base), KEYS, "docker here", set):
        assert (base / "kimi" / "HF_TOKEN").exists()
        raise KeyboardInterrupt
    assert not base.exists()


def test_a_plan_without_keys_makes_no_folder() -> None:
    with staging.keys_for(plan("demo"), KEYS, "docker here", set) as folder:
        assert folder is None


def test_a_parent_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NimctlError) as caught, staging.keys_for(planned(tmp_path / "file"), KEYS, "docker here", set):
        raise AssertionError("no key is handed over")
    assert caught.value.id == "config-invalid" and str(tmp_path / "file") in caught.value.fix


def test_the_plan_shows_the_folder_that_is_used() -> None:
    made = plan("kimi-k2.5", host(*gpus(8), hook=True), secrets_present=("HF_TOKEN",), secrets_dir=None)
    assert made.secrets[0].source == "/dev/shm/nimctl-1000/kimi-k2.5/HF_TOKEN"
    assert made.labels["io.nimctl.secrets"] == "/dev/shm/nimctl-1000/kimi-k2.5"

"""Cache paths, the folders made in it, and what `cache init` plans."""

import os
import stat
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to other users")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Group and mode of everything below `root`."""
    found = [root, *root.rglob("*")]
    return {str(p.relative_to(root)): (p.lstat().st_gid, mode(p)) for p in found if not p.is_symlink()}


def test_paths_follow_the_hugging_face_layout(tmp_path):
    paths = CachePaths(tmp_path)
    assert paths.hub == tmp_path / "huggingface/hub"
    assert paths.repo("org/name").snapshot("abc") == paths.hub / "models--org--name/snapshots/abc"
    assert paths.repo("org/name").ref("a/branch") == paths.hub / "models--org--name/refs/a/branch"
    assert paths.repo("org/team/name", "ngc").folder == tmp_path / "ngc/hub/models--org--team--name"


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "/etc", "a//b", "a/../b", "a\0b"])
def test_names_never_leave_the_cache(tmp_path, name):
    paths = CachePaths(tmp_path)
    for use in (paths.repo, paths.repo("a/b").snapshot, paths.repo("a/b").marker, paths.repo("a/b").ref):
        with pytest.raises(ValueError, match="not a"):
            use(name)
    with pytest.raises(ValueError, match="not a"):
        paths.engine_private(name)


def test_private_engine_cache_is_0700_in_a_shared_folder(tmp_path):
    folder = CachePaths(tmp_path).engine_private("image-gpu-driver")
    assert folder == tmp_path / "engine" / str(os.geteuid()) / "image-gpu-driver"
    assert [mode(p) for p in (folder, folder.parent, folder.parent.parent)] == [0o700, 0o700, 0o2770]
    folder.chmod(0o777)
    assert mode(CachePaths(tmp_path).engine_private("image-gpu-driver")) == 0o700


@as_root
def test_private_engine_cache_of_another_owner_is_refused(tmp_path):
    folder = CachePaths(tmp_path).engine_private("key")
    os.chown(folder.parent, 4242, 0)
    with pytest.raises(NimctlError) as caught:
        CachePaths(tmp_path).engine_private("key")
    assert caught.value.id == "cache-not-writable"
    assert "4242" in caught.value.cause


def test_private_engine_cache_is_never_a_link(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "engine" / str(os.geteuid())).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NimctlError) as caught:
        CachePaths(tmp_path).engine_private("key")
    assert caught.value.id == "cache-not-writable"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_shared_folders_have_their_mode_under_any_umask(tmp_path):
    before = os.umask(0o077)
    try:
        cache.make_shared_folder(tmp_path / "a/b", root=tmp_path / "a")
    finally:
        os.umask(before)
    assert [mode(tmp_path / "a"), mode(tmp_path / "a/b")] == [0o2770, 0o2770]


@pytest.mark.parametrize("make", [cache.make_shared_folder, pytest.param(cache.apply_init, marks=as_root)])
def test_folders_above_the_cache_get_the_mode_of_the_umask(tmp_path, make):
    before = os.umask(0o027)
    try:
        make(tmp_path / ".cache/nimctl/nim")
    finally:
        os.umask(before)
    assert [mode(tmp_path / p) for p in (".cache", ".cache/nimctl", ".cache/nimctl/nim")] == [0o750, 0o750, 0o2770]


@as_root
def test_init_makes_a_new_cache_and_has_nothing_to_do_the_second_time(tmp_path):
    root = tmp_path / "parents/cache"
    planned = cache.plan_init(root)
    assert [(a.kind, a.path.name) for a in planned] == [
        ("mkdir", "parents"),
        ("mkdir", "cache"),
        ("mkdir", "huggingface"),
        ("mkdir", "hub"),
        ("mkdir", "engine"),
    ]
    assert not root.exists(), "a plan changes nothing"
    assert cache.apply_init(root).made == 5
    assert set(tree(root).values()) == {(0, 0o2770)}
    assert cache.plan_init(root) == []
    report = cache.apply_init(root)
    assert report.to_json() == {"examined": 4, "made": 0, "regrouped": 0, "remoded": 0, "skipped": 0}
    assert report.summary == "nothing to change in 4 folders and files"


@as_root
def test_init_repairs_group_mode_and_sticky_bit_of_what_is_there(tmp_path):
    cache.apply_init(tmp_path)
    folder = tmp_path / "huggingface/hub/models--a--b"
    folder.mkdir()
    folder.chmod(0o1777)
    for name, bits in {"weights": 0o600, "script": 0o755, "open": 0o666}.items():
        (folder / name).write_text(name)
        (folder / name).chmod(bits)
    os.chown(folder / "weights", 4242, 4242)
    report = cache.apply_init(tmp_path)
    assert tree(folder) == {".": (0, 0o2770), "weights": (0, 0o660), "script": (0, 0o775), "open": (0, 0o666)}
    assert (folder / "weights").stat().st_uid == 4242, "the owner keeps the file"
    assert (report.regrouped, report.remoded) == (1, 3)
    assert report.summary == "0 folders made, group of 1 and mode of 3 entries changed"
    assert cache.plan_init(tmp_path) == []


@as_root
def test_init_follows_no_link_and_leaves_private_caches_alone(tmp_path):
    root, outside = tmp_path / "cache", tmp_path / "outside"
    cache.apply_init(root)
    private = CachePaths(root).engine_private("key")
    outside.mkdir()
    (outside / "file").write_text("x")
    os.chown(outside / "file", 4242, 4242)
    (root / "folder-link").symlink_to(outside)
    (root / "file-link").symlink_to(outside / "file")
    before = tree(outside)
    assert cache.plan_init(root) == []
    cache.apply_init(root)
    assert tree(outside) == before
    assert mode(private) == 0o700


@as_root
def test_a_link_that_takes_a_files_place_after_planning_is_not_followed(tmp_path, monkeypatch):
    root, victim = tmp_path / "cache", tmp_path / "victim"
    cache.apply_init(root)
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("x")
    (victim / "file").chmod(0o600)
    folder = root / "folder"
    folder.mkdir()
    folder.chmod(0o2770)
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o600)
    real_chmod = cache.init._apply

    def swap_then_apply(top, action):
        folder.rename(root / "moved")
        folder.symlink_to(victim)
        real_chmod(top, action)

    monkeypatch.setattr(cache.init, "_apply", swap_then_apply)
    with pytest.raises(NimctlError):
        cache.apply_init(root)
    assert mode(victim / "file") == 0o600


@as_root
def test_a_folder_that_root_makes_in_a_home_belongs_to_its_owner(tmp_path):
    os.chown(tmp_path, 4242, 4242)
    cache.apply_init(tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_uid == 4242
    assert (tmp_path / "cache").stat().st_gid == 0


@pytest.mark.parametrize("folder", ["/", "/etc", "/etc/ssl", "/home", "/usr/lib/python3", "/var/lib", "/tmp"])
def test_init_refuses_folders_of_the_system(folder):
    with pytest.raises(NimctlError) as caught:
        cache.plan_init(Path(folder))
    assert caught.value.id == "usage"
    example = caught.value.fix.removeprefix("Name a folder of its own, for example ").removesuffix(".")
    assert cache.plan_init(Path(example)), "the folder that is named instead would be accepted"


def test_init_refuses_a_home_folder_even_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(Path("~").expanduser())
    with pytest.raises(NimctlError) as caught:
        cache.plan_init(tmp_path / "link")
    assert caught.value.id == "usage"


def test_an_action_reads_like_the_command_it_stands_for(tmp_path):
    assert str(cache.Action("chmod", Path("/c/a b"), 0o2770, 0o1777)) == "chmod 2770 '/c/a b'  # was 1777"
    assert str(cache.Action("chgrp", Path("/c"), 0, 1000)) == "chgrp 0 /c  # was 1000"
    assert str(cache.Action("mkdir", Path("/c"), 0o2770)) == "mkdir 2770 /c"
    assert str(cache.Action("mkdir", Path("/c"), None)) == "mkdir /c"

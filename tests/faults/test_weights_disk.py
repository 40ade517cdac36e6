"""Fault: the cache has no room for the weights, may not be written, or was written by somebody else."""

import subprocess
from pathlib import Path

import pytest

from nimctl.core import cache
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import store
from tests.lib.checkpoints import CONTENT, TinySource, read_tree
from tests.lib.mounts import tmpfs
from tests.lib.users import as_user, needs_root, open_folder

pytestmark = needs_root


def ensure(root: Path, source: TinySource | None = None) -> Path:
    source = source or TinySource()
    return store.ensure(source, source.resolve(), CachePaths(root), lambda _: None)


def bytes_in(folder: Path) -> int:
    """Bytes of weights below `folder`; a writer's own notes in hidden files are none."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_too_little_room_is_found_before_the_first_byte(tmp_path):
    source = TinySource({**CONTENT, "model.safetensors": bytes(4 * 2**20)})
    with tmpfs(tmp_path / "small", "size=6m") as folder:
        with pytest.raises(NimctlError) as caught:
            ensure(folder / "cache", source)
        assert (caught.value.id, caught.value.exit_code) == ("disk-full", 9)
        assert "8.0 MiB more are needed and 6.0 MiB are free" in caught.value.cause
        assert bytes_in(folder) == 0
        assert source.calls == 0


def test_too_few_inodes_are_found_before_the_first_byte(tmp_path):
    source = TinySource()
    with tmpfs(tmp_path / "small", "size=32m,nr_inodes=35") as folder:
        with pytest.raises(NimctlError) as caught:
            ensure(folder / "cache", source)
        assert caught.value.id == "disk-full"
        assert "inodes are needed and" in caught.value.cause
        assert bytes_in(folder) == 0
        assert source.calls == 0


def test_no_inode_at_all_is_told_from_no_byte(tmp_path):
    with tmpfs(tmp_path / "small", "size=32m,nr_inodes=8") as folder:
        with pytest.raises(NimctlError) as caught:
            ensure(folder / "cache")
        assert caught.value.id == "disk-full"
        assert caught.value.cause.endswith("32.0 MiB are free, and no inodes")


def test_a_disk_that_fills_up_while_writing_keeps_what_was_there(tmp_path):
    with tmpfs(tmp_path / "small", "size=8m") as folder:
        first = ensure(folder)
        filler = folder / "filler"

        def fill() -> None:
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"x" * 2**24)

        second = TinySource({"config.json": b"{}", "model.safetensors": bytes(2**20)}, meanwhile=fill)
        with pytest.raises(NimctlError) as caught:
            ensure(folder, second)
        assert caught.value.id == "disk-full"
        assert read_tree(first) == CONTENT
        filler.unlink()
        second.meanwhile = lambda: None
        assert read_tree(ensure(folder, second)) == second.content


def test_a_read_only_cache_serves_what_is_complete_and_refuses_what_is_not(tmp_path):
    with tmpfs(tmp_path / "disk", "size=32m") as folder:
        ensure(folder)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True, timeout=30)
        assert read_tree(ensure(folder)) == CONTENT
        with pytest.raises(NimctlError) as caught:
            ensure(folder, TinySource({"config.json": b"other"}))
        assert caught.value.id == "cache-not-writable"
        assert "read-only" in caught.value.message


def test_any_uid_of_group_0_uses_mends_and_extends_what_another_made():
    with open_folder() as folder:
        root = folder / "cache"
        cache.apply_init(root)
        snapshot = as_user(lambda: ensure(root), uid=12345)
        assert as_user(lambda: read_tree(ensure(root)), uid=54321) == CONTENT
        (snapshot / "model.safetensors").resolve().write_bytes(b"short")
        assert as_user(lambda: read_tree(ensure(root)), uid=54321) == CONTENT
        other = TinySource({"config.json": b"other"})
        assert as_user(lambda: read_tree(ensure(root, other)), uid=999) == other.content
        groups = {path.lstat().st_gid for path in root.rglob("*")}
        assert groups == {0}
        assert cache.plan_init(root) == [], "what a fetch makes needs no repair"


def test_a_cache_of_somebody_else_is_refused_with_the_way_out():
    with open_folder() as folder:
        root = folder / "cache"
        root.mkdir(mode=0o755)
        with pytest.raises(NimctlError) as caught:
            as_user(lambda: ensure(root))
        assert caught.value.id == "cache-not-writable"
        assert "nimctl cache init" in caught.value.fix

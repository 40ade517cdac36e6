"""Fault: the disk is too small, fills up in the middle of a download, or must not be written."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import store
from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.fault_hub import UNREAD, Slow, Sparse
from tests.lib.fetcher import Ended, WebSource
from tests.lib.mounts import mounted, tmpfs
from tests.lib.users import needs_root
from tests.lib.web_checkpoints import Served, serve

pytestmark = needs_root

# More files than there are connections, as the room for a file is reserved when its turn comes.
SHARDS = {f"model-{n:05d}-of-00012.safetensors": Sparse(BLOCK + 2**18 + 77 * n, n) for n in range(1, 13)}
FILES = {"config.json": b"{}", **SHARDS}
WEIGHTS = "*.safetensors"
ONCE = sum(shard.size for shard in SHARDS.values())
STRANGER = 12345


@pytest.fixture
def served(hub) -> Served:
    return serve(hub, FILES)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user may go."""
    with tempfile.TemporaryDirectory(prefix="nimctl-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def refused(ended: Ended, error_id: str) -> str:
    """The cause of the refusal, which ends with the exit code of storage."""
    assert (ended.error_id, ended.code) == (error_id, 9), ended
    assert ended.error
    return str(ended.error["cause"])


@pytest.mark.parametrize(("options", "lacking"), [("size=30m", "MiB are free"), ("size=120m,nr_inodes=30", "inodes")])
def test_too_little_room_is_found_before_the_first_byte(hub, served, fetchers, folder, options, lacking):
    with tmpfs(folder / "disk", options) as disk:
        assert lacking in refused(fetchers.run(disk / "cache", served.wanted), "disk-full")
        assert hub.requests() == []
        assert not list(disk.rglob("*.data"))


def ext4(folder: Path, size: int, *options: str):
    """A filesystem of `size` bytes on a loop device: one with O_DIRECT, journal and late allocation."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(size)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", *options, image], check=False, timeout=60)
    if made.returncode:
        pytest.skip("ext4 cannot be made here")
    return mounted(folder / "disk", "-o", "loop", str(image))


def disk_of(kind: str, folder: Path):
    if kind == "tmpfs":
        return tmpfs(folder / "disk", "size=80m")
    # without extents nothing can be reserved, so that a write meets the full disk
    return ext4(folder, 120 * 2**20, *(["-O", "^extent,^64bit,^metadata_csum"] if kind == "old ext4" else []))


def fill(path: Path) -> None:
    """Take all the room there is."""
    with pytest.raises(OSError, match="No space"), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**18))


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "old ext4"])
def test_a_disk_that_fills_up_meanwhile_keeps_what_was_fetched(hub, served, fetchers, folder, kind):
    """The room was there when the plan was made, and somebody else took it."""
    with disk_of(kind, folder) as disk:
        hub.fail(WEIGHTS, Slow(2**20))
        child = fetchers.start(disk / "cache", served.wanted)
        hub.wait_for(lambda ledger: ledger.bytes_sent(WEIGHTS) > 2 * BLOCK)
        fill(disk / "filler")
        hub.heal()
        assert "MiB are free" in refused(child.wait(), "disk-full")
        requests = hub.requests(WEIGHTS)
        assert len(requests) <= len(SHARDS), "a full disk is no reason to ask again"
        assert not served.is_marked(disk / "cache")
        (disk / "filler").unlink()
        again = fetchers.run(disk / "cache", served.wanted)
        assert again.code == 0, again
        assert served.faults_of(disk / "cache") == []
        twice = hub.bytes_sent(WEIGHTS) - ONCE
        sys.stdout.write(f"{kind}: {twice / 2**20:.1f} MiB twice over {len(requests)} connections\n")
        assert twice <= len(requests) * (BLOCK + UNREAD)
        assert hub.bytes_sent(WEIGHTS) < 1.9 * ONCE, "what was fetched is used"


def test_a_complete_read_only_cache_is_used_and_not_written(hub, served, fetchers, folder):
    with tmpfs(folder / "disk", "size=80m") as disk:
        assert fetchers.run(disk / "cache", served.wanted).code == 0
        mark = hub.ledger.mark()
        before = sorted((path, path.lstat().st_mtime_ns) for path in disk.rglob("*"))
        for options, uid in (("remount,rw", STRANGER), ("remount,ro", None), ("remount,ro", STRANGER)):
            subprocess.run(["mount", "-o", options, disk], check=True, timeout=30)
            ended = fetchers.run(disk / "cache", served.wanted, uid=uid)
            assert ended.code == 0, ended
            assert sum(ended.counts.values()) == 0, "not even tried"
        assert sorted((path, path.lstat().st_mtime_ns) for path in disk.rglob("*")) == before
        assert hub.requests(since=mark) == []


def left_by_hf(served: Served, cache: Path) -> None:
    """Take away everything that `hf download` does not make."""
    shutil.rmtree(served.repo(cache).markers)
    shutil.rmtree(served.repo(cache).partial)


@pytest.mark.parametrize("how", ["mounted read-only", "another user's"])
def test_a_read_only_cache_without_marker(hub, served, fetchers, folder, how):
    """As `hf download` left it: verified and used; refused with the first file that is missing, or damaged."""
    with tmpfs(folder / "disk", "size=80m") as disk:
        cache = disk / "cache"
        assert fetchers.run(cache, served.wanted).code == 0
        left_by_hf(served, cache)
        shard = served.snapshot(cache) / sorted(SHARDS)[3]
        uid = close(disk, cache, how)
        mark = hub.ledger.mark()
        ended = fetchers.run(cache, served.wanted, uid=uid)
        assert ended.code == 0, ended
        if how == "mounted read-only":
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True, timeout=30)
        for damage in (flip, Path.unlink):
            damage(shard.resolve())
            close(disk, cache, how)
            ended = fetchers.run(cache, served.wanted, uid=uid)
            refused(ended, "cache-not-writable")
            assert ended.error
            assert shard.name in str(ended.error), ended.error
            if how == "mounted read-only":
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True, timeout=30)
        assert hub.requests(since=mark) == []


def close(disk: Path, cache: Path, how: str) -> int | None:
    """Make the cache read-only; the user to be."""
    if how == "mounted read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=30)
        return None
    for path in cache.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    cache.chmod(0o755)
    return STRANGER


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4711)
        byte = file.read(1)[0]
        file.seek(4711)
        file.write(bytes([byte ^ 1]))


def test_room_for_everything_is_asked_before_the_small_files(hub, served, folder):
    """Who fetches the configuration first learns then already that the weights will not fit."""
    source = WebSource("org/name", served.wanted.manifest, served.wanted.urls)
    with tmpfs(folder / "disk", "size=30m") as disk:
        with pytest.raises(NimctlError) as caught:
            store.ensure(
                source,
                source.manifest,
                CachePaths(disk / "cache"),
                lambda _: None,
                only=lambda file: file.path == "config.json",
            )
        assert caught.value.id == "disk-full"
        assert hub.requests() == []
    source.client.close()

"""Fault: a download is cut off whose source knows no digests, as many a mirror or bucket."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Patience, Stop, fetch, http, store
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.checkpoints import WebFiles
from tests.lib.fault_hub import FaultHub, Sparse
from tests.lib.mounts import tmpfs
from tests.lib.users import needs_root

SMALL, LARGE = Sparse(BLOCK + 5, seed=1), Sparse(4 * BLOCK, seed=2)
CONTENTS = {"a.safetensors": SMALL, "b.safetensors": LARGE}


@pytest.fixture
def client() -> Iterator[http.Client]:
    with closing(http.Client(timeouts=http.Timeouts(5, 20))) as client:
        yield client


@pytest.fixture
def paths(tmp_path) -> CachePaths:
    return CachePaths(tmp_path / "cache")


def source_of(hub: FaultHub, client: http.Client, version: str | None) -> WebFiles:
    files = tuple(File(name, content.size, version=version) for name, content in CONTENTS.items())
    return WebFiles(files, {name: hub.add_file(name, content) for name, content in CONTENTS.items()}, client)


def cut_off(hub: FaultHub, source: WebFiles, paths: CachePaths) -> None:
    """A fetch that ends with the small file delivered and more than two blocks of the large one."""
    stop, ended = Stop(), []

    def run() -> None:
        with pytest.raises(NimctlError) as caught:
            store.ensure(source, source.resolve(), paths, lambda _: None, stop=stop)
        ended.append(caught.value.id)

    hub.fail("b.safetensors", f"stall({2 * BLOCK + 99})")
    thread = threading.Thread(target=run)
    thread.start()
    hub.wait_for_stalls()
    blobs = paths.repo(source.repo).blobs
    deadline = time.monotonic() + 20
    while not any(p.stat().st_size == SMALL.size for p in blobs.glob("*")):
        assert time.monotonic() < deadline, "the small file was not delivered"
        time.sleep(0.01)
    stop.set()
    thread.join(20)
    assert ended == ["interrupted"]
    hub.heal()


def is_right(snapshot: Path) -> bool:
    return all((snapshot / name).read_bytes() == content.read(0, content.size) for name, content in CONTENTS.items())


def test_the_same_version_goes_on_where_it_stopped(hub, client, paths):
    cut_off(hub, source_of(hub, client, '"v1"'), paths)
    again, mark = source_of(hub, client, '"v1"'), hub.ledger.mark()
    assert is_right(store.ensure(again, again.resolve(), paths, lambda _: None))
    assert hub.bytes_sent("a.safetensors", since=mark) == 0
    assert hub.bytes_sent("b.safetensors", since=mark) == LARGE.size - 2 * BLOCK


@pytest.mark.parametrize("version", ['"v2"', None])
def test_another_version_or_an_unknown_one_begins_anew(hub, client, paths, version):
    cut_off(hub, source_of(hub, client, '"v1"' if version else None), paths)
    again, mark = source_of(hub, client, version), hub.ledger.mark()
    assert is_right(store.ensure(again, again.resolve(), paths, lambda _: None))
    assert hub.bytes_sent(since=mark) == SMALL.size + LARGE.size


def test_after_a_crash_of_the_machine_nothing_of_it_is_believed(hub, client, paths, tmp_path, monkeypatch):
    cut_off(hub, source_of(hub, client, '"v1"'), paths)
    boot = tmp_path / "boot_id"
    boot.write_text("5f3c0000-0000-4000-8000-000000000000\n")
    monkeypatch.setattr("nimctl.core.fetch.transfer.partial._BOOT_ID", boot)
    monkeypatch.setattr("nimctl.core.fetch.writers._STILL", 0.2)
    again, mark = source_of(hub, client, '"v1"'), hub.ledger.mark()
    assert is_right(store.ensure(again, again.resolve(), paths, lambda _: None))
    assert hub.bytes_sent("b.safetensors", since=mark) == LARGE.size


def test_the_files_that_come_first_are_not_fetched_again(hub, client, paths):
    source = source_of(hub, client, '"v1"')
    store.ensure(source, source.resolve(), paths, lambda _: None, only=lambda file: file.path.startswith("a"))
    mark = hub.ledger.mark()
    assert is_right(store.ensure(source, source.resolve(), paths, lambda _: None))
    assert hub.bytes_sent("a.safetensors", since=mark) == 0


def test_damage_that_cannot_be_mended_offline_is_named(hub, paths):
    """What `hf download` left has a flipped bit, and the network must not be used."""
    hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": tensors(3000)})
    access = Access(hf_endpoint=hub.url)
    snapshot = fetch("hf://org/name", paths.root, access=access)
    for marker in paths.repo("org/name").markers.iterdir():
        marker.unlink()
    blob = (snapshot / "model.safetensors").resolve()
    damaged = bytearray(blob.read_bytes())
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    with pytest.raises(NimctlError) as caught:
        fetch("hf://org/name", paths.root, access=replace(access, offline=True), patience=Patience(1))
    assert caught.value.id == "weights-corrupt"
    assert "model.safetensors" in caught.value.message
    assert "cache verify --repair" in caught.value.fix


def tensors(size: int) -> bytes:
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    return len(header).to_bytes(8, "little") + header + bytes(size)


@needs_root
def test_blobs_on_another_disk_are_refused_before_the_first_byte(hub, client, paths, tmp_path):
    source = source_of(hub, client, '"v1"')
    with tmpfs(tmp_path / "disk", "size=64m") as disk:
        repo = paths.repo(source.repo)
        repo.folder.mkdir(parents=True)
        repo.blobs.symlink_to(disk)
        with pytest.raises(NimctlError) as caught:
            store.ensure(source, source.resolve(), paths, lambda _: None)
    assert caught.value.id == "cache-not-writable"
    assert str(disk) in caught.value.cause
    assert hub.requests() == []

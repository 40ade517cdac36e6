"""Fault: the server misbehaves. Every fetch ends with the right content or with the right error, at any size."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Patience, Stop, http, snapshots, store
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.transfer.blocks import BLOCK
from tests.lib.checkpoints import WebFiles
from tests.lib.fault_hub import FaultHub, Sparse, sha256_of
from tests.lib.fault_hub.faults import FlipBit

SIZES = {"1 KiB": 1024, "three blocks": 3 * BLOCK - 7, "a dozen blocks": 12 * BLOCK + 4097}
QUICK = Patience(attempts=3, first=0.01, longest=0.02)
TIMEOUTS = http.Timeouts(connect=5.0, read=1.0)

# What happens twice and then no more: the fetch must recover. Those of a whole file begin it anew once.
PASSING = {
    "cut": "2*cut(500)->off",
    "stall": "1*stall(500)->off",
    "reset before the headers": "2*reset()->off",
    "reset in the body": "2*reset(500)->off",
    "truncated, and says so": "2*truncate(500)->off",
    "truncated, and lies": "2*truncate(500, lying=True)->off",
    "no body": "2*empty_body()->off",
    "wrong Content-Range": "2*wrong_content_range(1)->off",
    "wrong size of the whole": "2*wrong_total()->off",
    "range ignored": "ignore_range()",
    "short range": "short_range(100_000)",
    "another ETag each time": "changed_etag()",
    "wrong ETag": "wrong_etag()",
    "flipped bit": "1*flip_bit(777, 3)->off",
    "wrong bytes": "1*wrong_bytes()->off",
    "gzip": "2*gzip()->off",
    "416": "2*status(416)->off",
    "429 with Retry-After": "2*status(429, retry_after=0)->off",
    "500": "2*status(500)->off",
    "503 with Retry-After": "2*status(503, retry_after=0)->off",
    "no HTTP": '2*garbage("line")->off',
    "length of letters": '2*garbage("length")->off',
    "more bytes than it says": "2*extra(100, counted=False)->off",
    "more bytes, counted": "2*extra(100)->off",
}
# What goes on for ever: the error that names it.
LASTING = {
    "cut at once": ("cut(0)", "weights-source-failed"),
    "always truncated": ("truncate(0, lying=True)", "weights-source-failed"),
    "always wrong Content-Range": ("wrong_content_range(1)", "weights-source-failed"),
    "always the wrong size": ("wrong_total()", "weights-source-failed"),
    "always a flipped bit": ("flip_bit(777, 3)", "weights-corrupt"),
    "always wrong bytes": ("wrong_bytes()", "weights-corrupt"),
    "always gzip": ("gzip()", "weights-source-failed"),
    "always 416": ("status(416)", "weights-source-failed"),
    "always 429": ("status(429, retry_after=0)", "weights-source-failed"),
    "always 502": ("status(502)", "weights-source-failed"),
    "always resets": ("reset()", "weights-source-failed"),
    "redirects for ever": ("endless_redirect()", "weights-source-failed"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultHub]:
    with FaultHub() as hub:
        yield hub


@pytest.fixture
def hub(server) -> Iterator[FaultHub]:
    yield server
    server.heal()


@pytest.fixture
def client() -> Iterator[http.Client]:
    with closing(http.Client(timeouts=TIMEOUTS)) as made:
        yield made


@pytest.fixture
def paths(folder) -> CachePaths:
    return CachePaths(folder / "cache")


def source_of(hub: FaultHub, client: http.Client, *contents: Sparse, digest: bool = True) -> WebFiles:
    files, urls = [], {}
    for number, content in enumerate(contents):
        path = f"model-{number}.safetensors"
        urls[path] = hub.add_file(path, content)
        files.append(File(path, content.size, f"sha256:{sha256_of(content)}" if digest else None))
    return WebFiles(tuple(files), urls, client)


def ensure(source: WebFiles, paths: CachePaths, patience: Patience = QUICK) -> Path:
    return store.ensure(source, source.resolve(), paths, lambda _: None, patience=patience)


def holds(snapshot: Path, *contents: Sparse) -> bool:
    return all(
        (snapshot / f"model-{number}.safetensors").read_bytes() == content.read(0, content.size)
        for number, content in enumerate(contents)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", PASSING)
def test_server_misbehaviours_that_pass_end_in_the_right_content(hub, client, paths, fault, size):
    content = Sparse(SIZES[size], seed=7)
    source = source_of(hub, client, content)
    rule = hub.fail("model-0.safetensors", PASSING[fault])
    assert holds(ensure(source, paths, replace(QUICK, attempts=4)), content)
    met = rule.hits > 0 or (size == "1 KiB" and fault == "short range")
    assert met, "the server did what it should, so nothing was tested"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", LASTING)
def test_server_misbehaviours_that_last_end_in_the_right_error(hub, client, paths, fault, size):
    text, expected = LASTING[fault]
    source = source_of(hub, client, Sparse(SIZES[size], seed=7))
    hub.fail("model-0.safetensors", text)
    with pytest.raises(NimctlError) as caught:
        ensure(source, paths)
    assert caught.value.id == expected
    repo = paths.repo(source.repo)
    assert list(repo.blobs.iterdir()) == []
    assert snapshots.marked_revisions(repo) == []
    hub.heal()
    assert holds(ensure(source, paths), Sparse(SIZES[size], seed=7)), "what was kept does not spoil the next fetch"


@pytest.mark.parametrize("length", [1000, BLOCK + 1000])
def test_one_flipped_bit_is_accepted_at_no_offset(hub, client, folder, length):
    """Fifty offsets for each of two lengths, the first and the last byte among them."""
    content = Sparse(length, seed=3)
    source = source_of(hub, client, content)
    chosen = random.Random(length)
    offsets = [0, length - 1, *(chosen.randrange(length) for _ in range(48))]
    accepted = []
    for number, at in enumerate(offsets):
        paths = CachePaths(folder / str(number))
        rule = hub.fail("model-0.safetensors", FlipBit(at, chosen.randrange(8)))
        with pytest.raises(NimctlError) as caught:
            accepted.append(ensure(source, paths))
        assert caught.value.id == "weights-corrupt"
        assert rule.hits == 2, "it is fetched anew once"
        hub.heal()
    assert len(offsets) == 50
    assert accepted == []


def test_a_connection_is_used_for_one_range_after_the_other(hub, client, paths):
    before = hub.ledger.mark()
    contents = [Sparse(50_000, seed=n) for n in range(40)]
    assert holds(ensure(source_of(hub, client, *contents), paths), *contents)
    asked = hub.requests(since=before)
    assert len(asked) == 40
    assert len({entry.peer for entry in asked}) <= 8


def test_after_a_cut_nothing_is_fetched_twice(hub, client, paths):
    content = Sparse(9 * BLOCK, seed=1)
    before = hub.ledger.mark()
    hub.fail("model-0.safetensors", "3*cut(5_000_000)->off")
    assert holds(ensure(source_of(hub, client, content), paths), content)
    assert hub.bytes_sent("model-0.safetensors", since=before) == content.size


def test_a_file_without_a_digest_is_never_put_together_from_two(hub, client, paths):
    """The file is replaced by another of its size after the first range; the ETag alone tells."""
    first, second = Sparse(9 * BLOCK, seed=1), Sparse(9 * BLOCK, seed=2)
    source = source_of(hub, client, first, digest=False)

    def replaced(request) -> bool:
        hub.add_file("model-0.safetensors", second)
        return True

    hub.fail("model-0.safetensors", "1*cut(100_000)->off", when=replaced)
    assert holds(ensure(source, paths), second)


def test_what_has_no_digest_is_not_resumed_by_the_next_process(hub, client, paths):
    first, second = Sparse(3 * BLOCK, seed=1), Sparse(3 * BLOCK, seed=2)
    source = source_of(hub, client, first, digest=False)
    hub.fail("model-0.safetensors", "1*cut(9_000_000)->status(503)")
    with pytest.raises(NimctlError):
        ensure(source, paths)
    hub.heal()
    hub.add_file("model-0.safetensors", second)
    source.targets.clear()
    assert holds(ensure(source, paths), second)


def test_what_was_fetched_before_the_patience_ended_is_used(hub, client, paths):
    content = Sparse(3 * BLOCK, seed=1)
    source = source_of(hub, client, content)
    hub.fail("model-0.safetensors", "1*cut(9_000_000)->status(503)")
    with pytest.raises(NimctlError) as caught:
        ensure(source, paths)
    assert caught.value.id == "weights-source-failed"
    hub.heal()
    before = hub.ledger.mark()
    assert holds(ensure(source, paths), content)
    assert hub.bytes_sent(since=before) == content.size - 2 * BLOCK, "two whole blocks were there"


def test_a_signed_address_that_ends_during_the_download_is_asked_for_again(hub, client, paths):
    content = Sparse(3 * BLOCK, seed=5)
    hub.add_repo("org/signed", {"model.safetensors": content})
    file = File("model.safetensors", content.size, f"sha256:{sha256_of(content)}")
    source = WebFiles((file,), {file.path: f"{hub.url}/org/signed/resolve/main/model.safetensors"}, client)

    def expire(request) -> bool:
        hub.expire_links()
        return True

    before = hub.ledger.mark()
    hub.fail("model.safetensors", "1*cut(5_000_000)->off", listener="cdn", when=expire)
    snapshot = ensure(source, paths)
    assert (snapshot / file.path).read_bytes() == content.read(0, content.size)
    assert [e.status for e in hub.requests(listener="cdn", since=before)] == [206, 403, 206]


def test_an_empty_file_with_a_digest_of_something_else_is_refused_and_not_waited_for(hub, client, paths):
    file = File("empty.json", 0, "sha256:" + "0" * 64)
    with pytest.raises(NimctlError) as caught:
        ensure(WebFiles((file,), {}, client), paths)
    assert caught.value.id == "weights-corrupt"


def test_files_of_one_digest_are_fetched_once_and_empty_ones_not_at_all(hub, client, paths):
    content = Sparse(100_000, seed=1)
    digest = f"sha256:{sha256_of(content)}"
    url = hub.add_file("one.bin", content)
    names = ("a.bin", "sub/b.bin")
    files = (*(File(name, content.size, digest) for name in names), File("none", 0), File("empty", 0))
    before = hub.ledger.mark()
    snapshot = ensure(WebFiles(files, dict.fromkeys(names, url), client), paths)
    assert [(snapshot / file.path).stat().st_size for file in files] == [100_000, 100_000, 0, 0]
    assert len(hub.requests(since=before)) == 1


def test_only_some_files_are_brought_and_the_snapshot_is_not_marked(hub, client, paths):
    contents = [Sparse(1000, seed=n) for n in range(3)]
    source = source_of(hub, client, *contents)
    manifest, before = source.resolve(), hub.ledger.mark()
    snapshot = store.ensure(source, manifest, paths, lambda _: None, only=lambda file: "0" in file.path)
    assert [p.name for p in snapshot.iterdir()] == ["model-0.safetensors"]
    assert not store.is_complete(paths.repo(source.repo), manifest)
    assert holds(ensure(source, paths), *contents)
    assert len(hub.requests(since=before)) == 3, "what was brought first is not fetched again"


def test_a_stop_ends_a_stalled_fetch_and_what_came_is_kept(hub, client, paths):
    content = Sparse(3 * BLOCK, seed=1)
    source, stop, ended = source_of(hub, client, content), Stop(), []
    rule = hub.fail("model-0.safetensors", "1*stall(9_000_000)->off")

    def fetch() -> None:
        with pytest.raises(NimctlError) as caught:
            store.ensure(source, source.resolve(), paths, lambda _: None, stop=stop)
        ended.append(caught.value.id)

    thread = threading.Thread(target=fetch)
    thread.start()
    hub.wait_for_stalls()
    stop.set()
    thread.join(20)
    assert (ended, rule.hits) == (["interrupted"], 1)
    hub.heal()
    before = hub.ledger.mark()
    assert holds(ensure(source, paths), content)
    assert hub.bytes_sent(since=before) <= content.size - BLOCK

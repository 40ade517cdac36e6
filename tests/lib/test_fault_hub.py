"""The fault hub does what it says: each fault seen by a plain client, the ledger's figures, the APIs' shapes."""

import base64
import gzip
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.lib.fault_hub import (
    KEY,
    PASSWORD,
    TOKEN,
    USER,
    ChangedEtag,
    Cut,
    EmptyBody,
    EndlessRedirect,
    Extra,
    FaultHub,
    FlipBit,
    ForwardProxy,
    Garbage,
    Gzip,
    IgnoreRange,
    Lie,
    Redirect,
    Reset,
    ShortRange,
    Slow,
    Sparse,
    Stall,
    Status,
    Truncate,
    WrongBytes,
    WrongContentRange,
    WrongEtag,
    WrongTotal,
    sha256_of,
)
from tests.lib.fault_hub.rules import parse

BIG = Sparse(1_000_000, seed=7)
DATA = BIG.read(0, BIG.size)
CONFIG = b'{"model_type": "tiny"}'
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    with FaultHub() as hub:
        yield hub


@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes
    broken: type[Exception] | None = None  # what ended the body early

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def get(url: str, *, method: str = "GET", ca: ssl.SSLContext | None = None, timeout: float = 30, **headers: str) -> Got:
    """One request without following redirects; header names have `_` for `-`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, context=ca, timeout=timeout)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        with connection.getresponse() as response:
            body = bytearray()
            broken: type[Exception] | None = None
            try:
                while piece := response.read1(65536):
                    body += piece
                if response.length:
                    broken = http.client.IncompleteRead
            except (OSError, http.client.HTTPException) as error:
                broken = type(error)
            named = {name.lower(): value for name, value in response.getheaders()}
            return Got(response.status, named, bytes(body), broken)
    finally:
        connection.close()


def span(first: int, last: int) -> dict[str, Any]:
    return {"Range": f"bytes={first}-{last}"}


# contents


def test_a_sparse_content_is_the_same_however_it_is_read() -> None:
    pieces = b"".join(BIG.read(offset, 999) for offset in range(0, BIG.size, 999))
    assert pieces == DATA
    assert len(DATA) == BIG.size
    assert sha256_of(BIG) == hashlib.sha256(DATA).hexdigest()
    assert BIG.read(BIG.size, 10) == b""


def test_no_two_blocks_of_a_sparse_content_are_equal_and_seeds_differ() -> None:
    whole = Sparse(8 * 2**20, seed=1)
    blocks = [whole.read(offset, 65536) for offset in range(0, whole.size, 65536)]
    assert len(set(blocks)) == len(blocks)
    assert whole.read(0, 100) != Sparse(8 * 2**20, seed=2).read(0, 100)


# the mirror: ranges as RFC 9110 has them


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=10-99", 10, 99), ("bytes=999990-", 999_990, 999_999), ("bytes=-5", 999_995, 999_999)],
)
def test_a_range_gets_206_and_its_bytes(hub: FaultHub, asked: str, first: int, last: int) -> None:
    got = get(hub.add_file("a/b.bin", BIG), Range=asked)
    assert (got.status, got.body) == (206, DATA[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/1000000"


def test_no_range_an_impossible_one_and_several(hub: FaultHub) -> None:
    url = hub.add_file("b.bin", BIG)
    whole, beyond, many = get(url), get(url, Range="bytes=1000000-"), get(url, Range="bytes=0-1,5-6")
    assert (whole.status, whole.body) == (200, DATA)
    assert (beyond.status, beyond.headers["content-range"], beyond.body) == (416, "bytes */1000000", b"")
    assert (many.status, len(many.body)) == (200, 1_000_000)


def test_if_range_with_another_tag_gets_the_whole_file(hub: FaultHub) -> None:
    url = hub.add_file("b.bin", BIG)
    tag = get(url, method="HEAD").headers["etag"]
    assert get(url, If_Range=tag, **span(0, 9)).status == 206
    assert get(url, If_Range='"old"', **span(0, 9)).status == 200


def test_connections_are_kept_alive_and_head_has_no_body(hub: FaultHub) -> None:
    url = urlsplit(hub.add_file("b.bin", BIG))
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        connection.request(method, url.path, headers=span(0, 9))
        with connection.getresponse() as response:
            assert response.read() == (DATA[:10] if method == "GET" else b"")
    connection.close()
    assert len({entry.peer for entry in hub.requests()}) == 1


# each fault, from a plain client


@pytest.fixture
def url(hub: FaultHub) -> str:
    return hub.add_file("model-1.safetensors", BIG)


def test_cut(hub: FaultHub, url: str) -> None:
    hub.fail("model-*.safetensors", Cut(after=1000), times=2)
    for _ in range(2):
        got = get(url)
        assert (got.status, got.headers["content-length"], got.broken) == (200, "1000000", http.client.IncompleteRead)
        assert got.body == DATA[:1000]
    assert get(url).body == DATA


def test_a_stall_goes_on_when_released(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Stall(after=5000))
    found: list[Got] = []
    thread = threading.Thread(target=lambda: found.append(get(url)))
    thread.start()
    hub.wait_for_stalls()
    assert hub.bytes_sent() == 5000
    assert found == []
    hub.release()
    thread.join(20)
    assert found[0].body == DATA


@pytest.mark.parametrize("after", [-1, 0, 7])
def test_a_stall_of_some_seconds_ends_by_itself(hub: FaultHub, url: str, after: int) -> None:
    hub.fail("*.safetensors", Stall(after=after, seconds=0.01))
    assert get(url).body == DATA


def test_a_stall_before_the_headers_sends_nothing(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Stall(after=-1))
    with pytest.raises(TimeoutError):
        get(url, timeout=0.2)
    hub.wait_for_stalls()


def test_truncate_honest_and_lying(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Truncate(to=100), times=1)
    hub.fail("*.safetensors", Truncate(to=100, lying=True), times=1)
    honest, lying = get(url, **span(50, 999)), get(url, **span(50, 999))
    assert honest.body == lying.body == DATA[50:150]
    assert (honest.headers["content-length"], honest.broken) == ("100", None)
    assert (lying.headers["content-length"], lying.broken) == ("950", http.client.IncompleteRead)


def test_a_short_range_is_true_about_itself(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", ShortRange(to=10))
    got = get(url, **span(50, 999))
    assert (got.status, got.headers["content-range"], got.body) == (206, "bytes 50-59/1000000", DATA[50:60])


def test_reset_before_and_after_the_headers(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Reset(), times=1)
    hub.fail("*.safetensors", Reset(after=100))
    with pytest.raises(ConnectionResetError):
        get(url)
    got = get(url)
    assert (got.status, got.broken) == (200, ConnectionResetError)
    assert DATA[:100].startswith(got.body)


def test_ignore_range(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", IgnoreRange())
    got = get(url, **span(50, 99))
    assert (got.status, got.body) == (200, DATA)
    assert "content-range" not in got.headers


def test_wrong_content_range_in_word_and_in_deed(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", WrongContentRange(by=10), times=1)
    hub.fail("*.safetensors", WrongContentRange(by=10, bytes_too=True), times=1)
    word, deed = get(url, **span(50, 99)), get(url, **span(50, 99))
    assert word.headers["content-range"] == deed.headers["content-range"] == "bytes 60-109/1000000"
    assert (word.body, deed.body) == (DATA[50:100], DATA[60:110])


def test_wrong_total(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", WrongTotal(by=-1))
    assert get(url, **span(0, 9)).headers["content-range"] == "bytes 0-9/999999"


def test_etags_that_change_and_one_that_is_wrong(hub: FaultHub, url: str) -> None:
    right = get(url).headers["etag"]
    hub.fail("*.safetensors", ChangedEtag(), times=3)
    hub.fail("*.safetensors", WrongEtag("beef"))
    tags = [get(url, **span(0, 9)).headers["etag"] for _ in range(2)]
    assert len({right, *tags}) == 3
    assert get(url, If_Range=tags[0], **span(0, 9)).status == 200
    assert get(url, method="HEAD").headers["etag"] == '"beef"'


def test_a_flipped_bit_is_one_bit_and_waits_for_its_range(hub: FaultHub, url: str) -> None:
    rule = hub.fail("*.safetensors", FlipBit(at=70_000, bit=3), times=1)
    assert get(url, **span(0, 69_999)).body == DATA[:70_000]
    assert rule.hits == 0
    got = get(url, **span(69_990, 70_010)).body
    assert [(i, a ^ b) for i, (a, b) in enumerate(zip(got, DATA[69_990:], strict=False)) if a != b] == [(10, 8)]
    assert get(url).body == DATA
    assert rule.hits == 1


def test_wrong_bytes_extra_bytes_and_none(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", WrongBytes(), times=1)
    hub.fail("*.safetensors", Extra(5), times=1)
    hub.fail("*.safetensors", EmptyBody(), times=1)
    wrong, extra, empty = (get(url, **span(0, 99)) for _ in range(3))
    assert (wrong.status, wrong.body) == (206, bytes(255 - byte for byte in DATA[:100]))
    assert (extra.body, extra.headers["content-length"]) == (DATA[:100] + b"!!!!!", "105")
    assert (empty.status, empty.body) == (206, b"")


def test_uncounted_extra_bytes_spoil_the_next_answer(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Extra(5, counted=False), times=1)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as plain, plain.makefile("rb") as reader:
        request = f"GET {parts.path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n".encode()
        plain.sendall(request * 2)
        while reader.readline() != b"\r\n":
            pass
        assert reader.read(10) == DATA[:10]
        assert reader.readline().startswith(b"!!!!!HTTP/1.1 206")


@pytest.mark.parametrize("code", [401, 403, 404, 408, 416, 429, 500, 502, 503, 504])
def test_statuses_meet_head_and_get(hub: FaultHub, url: str, code: int) -> None:
    hub.fail("*.safetensors", Status(code))
    got = get(url)
    assert (get(url, method="HEAD").status, got.status) == (code, code)
    assert got.headers.get("content-range") == ("bytes */1000000" if code == 416 else None)


def test_retry_after_in_seconds_and_as_a_date(hub: FaultHub, url: str) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    hub.fail("*.safetensors", Status(429, retry_after=3), times=1)
    hub.fail("*.safetensors", Status(429, retry_after=moment))
    assert get(url).headers["retry-after"] == "3"
    assert parsedate_to_datetime(get(url).headers["retry-after"]) == moment


def test_slow_is_slow_and_ends_with_the_hub(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Slow(rate=100_000), times=1)
    assert get(url, **span(0, 9_999)).body == DATA[:10_000]
    hub.fail("*.safetensors", Slow(rate=1))
    found: list[Got] = []
    thread = threading.Thread(target=lambda: found.append(get(url)))
    thread.start()
    hub.wait_for(lambda ledger: ledger.bytes_sent() > 10_000)
    assert hub.bytes_sent() < 10_100
    hub.close()
    thread.join(20)
    assert found[0].broken is http.client.IncompleteRead


def test_an_endless_redirect_never_repeats_its_address(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", EndlessRedirect())
    seen = [url]
    for _ in range(5):
        got = get(seen[-1])
        assert got.status == 302
        seen.append(got.headers["location"])
    assert len(set(seen)) == 6


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("same_path", [False, True])
def test_redirect_to_another_host(hub: FaultHub, url: str, code: int, same_path: bool) -> None:
    hub.fail("*.safetensors", Redirect("foreign", code, same_path=same_path))
    got = get(url)
    there = urlsplit(got.headers["location"])
    assert (got.status, there.hostname) == (code, "localhost")
    assert (there.path == urlsplit(url).path) == same_path
    assert get(got.headers["location"]).body == DATA


def test_gzip_unasked(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Gzip())
    got = get(url, **span(0, 99))
    assert got.headers["content-encoding"] == "gzip"
    assert gzip.decompress(got.body) == DATA[:100]


def test_garbage(hub: FaultHub, url: str) -> None:
    for kind in ("line", "huge"):
        hub.fail("*.safetensors", Garbage(kind), times=1)
        with pytest.raises(http.client.HTTPException):
            get(url)
    hub.fail("*.safetensors", Garbage("length"), times=1)
    assert get(url, **span(0, 9)).headers["content-length"] == "banana"
    hub.fail("*.safetensors", Garbage("header"), times=1)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as plain, plain.makefile("rb") as reader:
        plain.sendall(f"HEAD {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        lines = []
        while (line := reader.readline()) != b"\r\n":
            lines.append(line)
    assert b"\x00\xffno colon here\r\n" in lines


# rules


def test_faults_go_together_and_skip_counts(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", WrongBytes(), Cut(after=10), skip=1, times=1)
    first, second, third = get(url), get(url), get(url)
    assert first.body == third.body == DATA
    assert second.body == bytes(255 - byte for byte in DATA[:10])


def test_the_text_notation_is_a_sequence(hub: FaultHub, url: str) -> None:
    rule = hub.fail("model-1*", "2*status(503, retry_after=1)->off->wrong_bytes+cut(10)")
    found = [get(url) for _ in range(5)]
    assert [got.status for got in found] == [503, 503, 200, 200, 200]
    assert [len(got.body) for got in found[2:]] == [1_000_000, 10, 10]
    assert rule.hits == 4


@pytest.mark.parametrize("text", ["", "banana", "cut", "cut(after=", "1->2", "2*'x'"])
def test_a_text_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises((ValueError, SyntaxError, TypeError)):
        parse(text)


def test_rules_ask_for_listener_method_and_more(hub: FaultHub, url: str) -> None:
    hub.fail("*.safetensors", Status(500), listener="foreign")
    hub.fail("/files/*", Status(501), method="HEAD")
    hub.fail("*.safetensors", Status(502), when=lambda request: request.headers.get("range") == "bytes=5-6")
    assert get(url).status == 200
    assert get(url.replace(hub.url, hub.url_of("foreign"))).status == 500
    assert get(url, method="HEAD").status == 501
    assert get(url, **span(5, 6)).status == 502
    hub.heal()
    assert get(url, **span(5, 6)).status == 206


# the ledger


def test_the_ledger_knows_what_was_asked_and_sent(hub: FaultHub, url: str) -> None:
    get(url, Authorization="Bearer canary", **span(100, 299))
    mark = hub.ledger.mark()
    hub.add_file("other.json", CONFIG)
    get(f"{hub.files_url}/other.json")
    first = hub.requests()[0]
    assert (first.listener, first.method, first.path) == ("hub", "GET", "/files/model-1.safetensors")
    assert (first.asked, first.status, first.role, first.sent) == ("bytes=100-299", 206, "content", 200)
    assert first.peer.startswith("127.0.0.1:")
    assert (hub.bytes_sent("*.safetensors"), hub.bytes_sent(since=mark)) == (200, len(CONFIG))
    assert hub.credentials_seen() == {"Bearer canary"}
    assert hub.credentials_seen(listener="cdn") == set()
    assert hub.knows("canary")
    assert not hub.knows("canary", listener="cdn")


def test_a_secret_is_found_inside_basic_credentials_and_addresses(hub: FaultHub, url: str) -> None:
    basic = base64.b64encode(b"$oauthtoken:canary-1").decode()
    get(url, Authorization=f"Basic {basic}", **span(0, 1))
    get(f"{url}?key=canary-2", **span(0, 1))
    assert hub.knows("canary-1")
    assert hub.knows("canary-2")
    assert not hub.knows("canary-3")


def test_waiting_in_vain_says_what_there_was(hub: FaultHub, url: str) -> None:
    get(url, **span(0, 1))
    with pytest.raises(AssertionError, match=r"model-1\.safetensors"):
        hub.wait_for(lambda ledger: False, seconds=0.01)


# the Hub


REPOSITORY: dict[str, Any] = {
    "config.json": CONFIG,
    "model-00001.safetensors": BIG,
    "deep/er/tokenizer.json": b"{}" * 50,
}


def auth(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}"}


def test_model_info_and_commits(hub: FaultHub) -> None:
    old = hub.add_repo("org/name", REPOSITORY)
    new = hub.add_repo("org/name", REPOSITORY | {"config.json": b"{}"})
    tag = hub.add_repo("org/name", {"a": b"b"}, revision_name="v1")
    assert len({old, new, tag}) == 3
    base = f"{hub.url}/api/models/org/name"
    assert get(base).document["sha"] == new
    assert get(f"{base}/revision/main").document["sha"] == new
    assert get(f"{base}/revision/v1").document["sha"] == tag
    assert get(f"{base}/revision/{old}").document["sha"] == old
    plain, blobs = (get(f"{base}/revision/main{query}").document["siblings"] for query in ("", "?blobs=true"))
    assert {"rfilename": "config.json"} in plain
    weights = next(entry for entry in blobs if entry["rfilename"] == "model-00001.safetensors")
    assert (weights["size"], weights["lfs"]["sha256"]) == (BIG.size, sha256_of(BIG))


def test_the_tree_has_git_names_and_pages(hub: FaultHub) -> None:
    hub.add_repo("org/name", REPOSITORY)
    hub.hugging_face.page_size = 2
    address, entries, pages = f"{hub.url}/api/models/org/name/tree/main?recursive=true&expand=False", [], 0
    while address:
        got = get(address)
        entries += got.document
        link = got.headers.get("link", "")
        assert not link or link.endswith('; rel="next"')
        address, pages = link.partition(">")[0].lstrip("<"), pages + 1
    assert pages == 3
    assert {entry["path"]: entry["type"] for entry in entries} == {
        "config.json": "file",
        "deep": "directory",
        "deep/er": "directory",
        "deep/er/tokenizer.json": "file",
        "model-00001.safetensors": "file",
    }
    by_path = {entry["path"]: entry for entry in entries}
    assert by_path["config.json"]["oid"] == hashlib.sha1(b"blob 22\0" + CONFIG).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_of(BIG)}\nsize 1000000\n".encode()
    weights = by_path["model-00001.safetensors"]
    assert weights["lfs"] == {"oid": sha256_of(BIG), "size": 1_000_000, "pointerSize": len(pointer)}
    assert weights["oid"] == hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer).hexdigest()
    top = get(f"{hub.url}/api/models/org/name/tree/main").document
    assert [entry["path"] for entry in top] == ["config.json", "deep"]


def test_resolve_redirects_large_files_to_another_host(hub: FaultHub) -> None:
    commit = hub.add_repo("org/name", REPOSITORY)
    address = f"{hub.url}/org/name/resolve/main"
    small, large = get(f"{address}/config.json"), get(f"{address}/model-00001.safetensors")
    assert (small.status, small.body, small.headers["x-repo-commit"]) == (200, CONFIG, commit)
    assert small.headers["etag"] == f'"{hashlib.sha1(b"blob 22" + bytes(1) + CONFIG).hexdigest()}"'
    assert (large.status, large.headers["x-repo-commit"]) == (302, commit)
    assert (large.headers["x-linked-etag"], large.headers["x-linked-size"]) == (f'"{sha256_of(BIG)}"', "1000000")
    there = large.headers["location"]
    assert urlsplit(there).hostname == "127.0.0.2"
    assert get(there, **span(10, 19)).body == DATA[10:20]
    assert hub.bytes_sent("*.safetensors") == hub.bytes_sent("*.safetensors", listener="cdn") == 10


def test_a_presigned_address_refuses_credentials_and_expires(hub: FaultHub) -> None:
    hub.add_repo("org/name", REPOSITORY)
    resolve = f"{hub.url}/org/name/resolve/main/model-00001.safetensors"
    there = get(resolve).headers["location"]
    assert get(there, Authorization="Bearer canary").status == 400
    assert hub.credentials_seen(listener="cdn") == {"Bearer canary"}
    hub.expire_links()
    assert get(there).status == 403
    assert get(get(resolve).headers["location"], **span(0, 0)).status == 206


def test_small_files_may_redirect_on_the_same_host(hub: FaultHub) -> None:
    hub.add_repo("org/name", REPOSITORY)
    hub.hugging_face.small_files_redirect = True
    got = get(f"{hub.url}/org/name/resolve/main/deep/er/tokenizer.json")
    assert (got.status, got.headers["location"][:19]) == (307, "/api/resolve-cache/")
    assert get(hub.url + got.headers["location"]).body == b"{}" * 50


@pytest.mark.parametrize(
    ("repository", "token", "status", "code"),
    [
        ("org/gated", None, 401, "GatedRepo"),
        ("org/gated", "hf_other", 403, "GatedRepo"),
        ("org/gated", TOKEN, 302, None),
        ("org/gated", "hf_unknown", 401, None),
        ("org/private", None, 401, "RepoNotFound"),
        ("org/private", "hf_other", 404, "RepoNotFound"),
        ("org/private", TOKEN, 302, None),
        ("org/absent", None, 401, "RepoNotFound"),
        ("org/absent", TOKEN, 404, "RepoNotFound"),
    ],
)
def test_who_may_have_what(hub: FaultHub, repository: str, token: str | None, status: int, code: str | None) -> None:
    hub.add_repo("org/gated", REPOSITORY, gated="manual")
    hub.add_repo("org/private", REPOSITORY, private=True)
    hub.hugging_face.tokens.add("hf_other")
    headers = auth(token) if token else {}
    got = get(f"{hub.url}/{repository}/resolve/main/model-00001.safetensors", **headers)
    assert (got.status, got.headers.get("x-error-code")) == (status, code)


def test_unknown_revisions_and_files_and_a_gated_listing(hub: FaultHub) -> None:
    hub.add_repo("org/open", REPOSITORY, gated="auto")
    hub.add_repo("org/shut", REPOSITORY, gated="auto", gated_listing=True)
    api = f"{hub.url}/api/models"
    assert get(f"{api}/org/open/tree/main").status == 200
    assert get(f"{api}/org/shut/revision/main").headers["x-error-code"] == "GatedRepo"
    assert get(f"{api}/org/open/revision/nope").headers["x-error-code"] == "RevisionNotFound"
    entry = get(f"{hub.url}/org/open/resolve/main/nope.json", **auth(TOKEN))
    assert (entry.status, entry.headers["x-error-code"]) == (404, "EntryNotFound")


def test_lies_are_told_everywhere(hub: FaultHub) -> None:
    lie = Lie(sha256="ab" * 32, size=5)
    hub.add_repo("org/name", REPOSITORY, lies={"model-00001.safetensors": lie})
    resolve = get(f"{hub.url}/org/name/resolve/main/model-00001.safetensors")
    tree = get(f"{hub.url}/api/models/org/name/tree/main?recursive=true").document
    assert (resolve.headers["x-linked-etag"], resolve.headers["x-linked-size"]) == (f'"{"ab" * 32}"', "5")
    assert next(entry for entry in tree if entry.get("lfs"))["lfs"]["oid"] == "ab" * 32
    assert get(resolve.headers["location"]).body == DATA


def test_faults_of_the_resolve_answer(hub: FaultHub) -> None:
    hub.add_repo("org/name", REPOSITORY)
    resolve = f"{hub.url}/org/name/resolve/main/model-00001.safetensors"
    hub.fail("*.safetensors", WrongTotal(by=3), WrongEtag("beef"), on="resolve")
    hub.fail("*.safetensors", Cut(after=3))
    got = get(resolve)
    assert (got.headers["x-linked-size"], got.headers["x-linked-etag"]) == ("1000003", '"beef"')
    assert get(got.headers["location"]).body == DATA[:3]


DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/name", endpoint=sys.argv[1], cache_dir=sys.argv[2], token=sys.argv[3] or None))
"""


def hf_download(hub: FaultHub, cache: Path, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache / "home")}
    argv = [sys.executable, "-c", DOWNLOAD, hub.url, str(cache), token]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("redirecting", [False, True])
def test_huggingface_hub_downloads_from_it(hub: FaultHub, tmp_path: Path, redirecting: bool) -> None:
    pytest.importorskip("huggingface_hub")
    commit = hub.add_repo("org/name", REPOSITORY, gated="manual")
    hub.hugging_face.page_size = 2
    hub.hugging_face.small_files_redirect = redirecting
    done = hf_download(hub, tmp_path, TOKEN)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models--org--name" / "snapshots" / commit
    assert done.stdout.strip() == str(folder)
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "deep/er/tokenizer.json").read_bytes() == b"{}" * 50
    assert (folder / "model-00001.safetensors").read_bytes() == DATA
    assert (folder / "model-00001.safetensors").resolve().name == sha256_of(BIG)
    assert hub.bytes_sent("*.safetensors") == BIG.size
    assert hub.credentials_seen() == {f"Bearer {TOKEN}"}
    assert hub.credentials_seen(listener="cdn") == set()


def test_huggingface_hub_names_a_gated_repository(hub: FaultHub, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    hub.add_repo("org/name", REPOSITORY, gated="manual")
    done = hf_download(hub, tmp_path)
    assert done.returncode == 1
    assert "GatedRepoError" in done.stderr


# NGC


NGC_FILES: dict[str, Any] = {"weights/a.safetensors": BIG, "config.json": CONFIG}
SCOPED = "/v2/org/nim/team/meta/models/llama"


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def ngc_token(hub: FaultHub, key: str = KEY) -> Got:
    basic = base64.b64encode(f"$oauthtoken:{key}".encode()).decode()
    return get(f"{hub.url}/token?service=ngc&scope=group/ngc:nim/meta", Authorization=f"Basic {basic}")


def test_ngc_key_exchange_listing_and_download(hub: FaultHub) -> None:
    hub.add_ngc("nim/meta/llama", "1.0", NGC_FILES)
    token = ngc_token(hub).document["token"]
    listing = get(f"{hub.url}{SCOPED}/versions/1.0/files", **auth(token)).document
    assert listing["modelFiles"] == [
        {"path": "config.json", "sizeInBytes": len(CONFIG), "sha256_base64": checksum(CONFIG)},
        {"path": "weights/a.safetensors", "sizeInBytes": BIG.size, "sha256_base64": checksum(DATA)},
    ]
    assert listing["paginationInfo"]["totalResults"] == 2
    assert listing["requestStatus"]["statusCode"] == "SUCCESS"
    redirect = get(f"{hub.url}{SCOPED}/versions/1.0/files/weights/a.safetensors", **auth(token))
    document = get(f"{hub.url}{SCOPED}/1.0/files?path=weights/a.safetensors", **auth(token)).document
    assert redirect.status == 302
    assert document["filepath"] == ["weights/a.safetensors"]
    for address in (redirect.headers["location"], document["urls"][0]):
        assert urlsplit(address).hostname == "127.0.0.3"
        assert get(address, **span(0, 9)).body == DATA[:10]
    version = get(f"{hub.url}{SCOPED}/versions/1.0", **auth(KEY)).document["modelVersion"]
    assert (version["totalFileCount"], version["totalSizeInBytes"]) == (2, BIG.size + len(CONFIG))


def test_ngc_addresses_come_in_pages(hub: FaultHub) -> None:
    hub.add_ngc("nim/meta/llama", "1.0", NGC_FILES)
    pages = [
        get(f"{hub.url}{SCOPED}/1.0/files?page-size=1&page-number={number}", **auth(KEY)).document for number in (1, 2)
    ]
    assert [page["filepath"] for page in pages] == [["config.json"], ["weights/a.safetensors"]]
    assert [page["sha256_base64"] for page in pages] == [[checksum(CONFIG)], [checksum(DATA)]]
    assert {page["paginationInfo"]["totalPages"] for page in pages} == {2}


def test_ngc_keyless_where_it_is_public(hub: FaultHub) -> None:
    hub.add_ngc("nvidia/research/gan", "1", NGC_FILES, public=True)
    hub.add_ngc("nim/meta/llama", "1.0", NGC_FILES)
    hub.add_ngc("nvidia/plain", "2", {"a.txt": b"a"}, public=True)
    base = f"{hub.url}/v2/models"
    assert get(f"{base}/nvidia/research/gan/versions/1/files").document["paginationInfo"]["totalResults"] == 2
    assert get(f"{base}/nvidia/research/gan/versions/1/files/config.json").status == 302
    assert get(f"{base}/org/nvidia/team/research/gan/1/files?redirect=true&path=config.json").status == 302
    assert get(f"{base}/nvidia/plain/versions/2/files/a.txt").status == 302
    assert get(f"{base}/nim/meta/llama/versions/1.0/files").status == 401
    assert get(f"{hub.url}/v2/org/nvidia/team/research/models/gan/versions/1/files").status == 401


def test_ngc_refusals(hub: FaultHub) -> None:
    hub.add_ngc("nim/meta/llama", "1.0", NGC_FILES)
    hub.ngc.keys.add("nvapi-other")
    assert ngc_token(hub, "wrong").status == 401
    assert get(f"{hub.url}{SCOPED}/versions/1.0/files", **auth("nvapi-other")).status == 403
    assert get(f"{hub.url}{SCOPED}/versions/9/files", **auth(KEY)).status == 404
    assert get(f"{hub.url}{SCOPED}/versions/1.0/files/none", **auth(KEY)).status == 404
    token = ngc_token(hub).document["token"]
    hub.ngc.expire_tokens()
    refused = get(f"{hub.url}{SCOPED}/versions/1.0/files", **auth(token))
    assert (refused.status, refused.document["requestStatus"]["statusCode"]) == (401, "UNAUTHORIZED")


# HTTPS


def test_https_under_its_own_ca_and_no_other() -> None:
    with FaultHub(tls=True) as hub:
        hub.add_repo("org/name", REPOSITORY)
        trusting = hub.certificates.client_context()
        got = get(f"{hub.url}/org/name/resolve/main/model-00001.safetensors", ca=trusting)
        assert got.headers["location"].startswith("https://127.0.0.2:")
        assert get(got.headers["location"], ca=trusting).body == DATA
        hub.add_file("b.bin", BIG)
        assert get(f"{hub.url_of('foreign')}/files/b.bin", ca=trusting, **span(0, 1)).body == DATA[:2]
        with pytest.raises(ssl.SSLCertVerificationError):
            get(hub.url, ca=ssl.create_default_context())
        hub.fail("b.bin", Reset(), times=1)
        with pytest.raises(ConnectionError):
            get(f"{hub.files_url}/b.bin", ca=trusting)
        hub.fail("b.bin", Redirect("plain", 307))
        assert hub.listen("plain", "127.0.0.4").startswith("http://127.0.0.4:")
        assert get(f"{hub.files_url}/b.bin", ca=trusting).headers["location"].startswith("http://127.0.0.4:")


def test_a_certificate_of_another_time_is_refused() -> None:
    then = datetime.now(UTC) - timedelta(days=30)
    valid = (then, then + timedelta(days=1))
    with FaultHub(tls=True, valid=valid) as hub, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        get(hub.url, ca=hub.certificates.client_context())


# the proxy


def through(proxy: ForwardProxy, url: str, **headers: str) -> Got:
    """An absolute-form request."""
    place, target = urlsplit(proxy.url), urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", url, headers={"Host": target.netloc, **named})
        with connection.getresponse() as response:
            named = {name.lower(): value for name, value in response.getheaders()}
            return Got(response.status, named, response.read())
    finally:
        connection.close()


def test_the_proxy_passes_absolute_requests_on(hub: FaultHub) -> None:
    url = hub.add_file("b.bin", BIG)
    named = url.replace("127.0.0.1", "weights.example")
    with ForwardProxy(hosts={"weights.example": ("127.0.0.1", urlsplit(url).port or 0)}) as proxy:
        assert through(proxy, url).body == DATA
        assert through(proxy, named, Range="bytes=0-1").body == DATA[:2]
        first, second = proxy.passages
        assert (first.method, first.target, first.status) == ("GET", url, 200)
        assert first.down > BIG.size
        assert second.target == named
    assert all("proxy-connection" not in entry.headers for entry in hub.requests())


def test_the_proxy_tunnels_https() -> None:
    with FaultHub(tls=True) as hub, ForwardProxy() as proxy:
        hub.add_file("b.bin", BIG)
        there, place = urlsplit(hub.url), urlsplit(proxy.url)
        connection = http.client.HTTPSConnection(
            place.hostname or "", place.port, context=hub.certificates.client_context(), timeout=30
        )
        connection.set_tunnel(there.hostname or "", there.port)
        connection.request("GET", "/files/b.bin", headers={"Authorization": "Bearer canary"})
        with connection.getresponse() as response:
            assert response.read() == DATA
        connection.close()
        passage = proxy.passages[0]
        assert (passage.method, passage.target) == ("CONNECT", there.netloc)
        assert "authorization" not in passage.headers
        assert passage.down > BIG.size


def test_the_proxy_refuses_and_asks_for_credentials(hub: FaultHub) -> None:
    url = hub.add_file("b.bin", BIG)
    with ForwardProxy("refuses") as proxy:
        assert through(proxy, url).status == 403
    with ForwardProxy("credentials") as proxy:
        asked = through(proxy, url)
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        given = through(proxy, url, Proxy_Authorization=f"Basic {basic}")
        assert (asked.status, asked.headers["proxy-authenticate"][:5]) == (407, "Basic")
        assert (given.status, given.body) == (200, DATA)
        assert f"{USER}:{PASSWORD}@" in proxy.url_with_credentials
    assert not hub.knows(PASSWORD)
    assert len(hub.requests()) == 1


def test_the_proxy_cannot_reach_what_is_not_there(hub: FaultHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with ForwardProxy() as proxy:
        assert through(proxy, f"http://127.0.0.1:{port}/").status == 502


# the end


def hub_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "fault-hub" in thread.name or "_run" in thread.name]


@pytest.mark.parametrize("tls", [False, True])
def test_close_ends_everything_with_stalled_idle_and_silent_clients(tls: bool) -> None:
    before = set(threading.enumerate())
    plain: list[socket.socket] = []
    with FaultHub(tls=tls) as hub:
        # More than both socket buffers hold, so that the server is stuck in a send and not only in a wait.
        url = urlsplit(hub.add_file("big.bin", Sparse(512 * 2**20)))
        hub.add_file("stall.bin", BIG)
        hub.fail("stall.bin", Stall(after=10))
        for path in ("/files/big.bin", "/files/stall.bin", None):
            client = socket.create_connection((url.hostname or "", url.port or 0))
            plain.append(client)
            if path is None:
                continue  # connects and says nothing; with TLS that leaves the server in its handshake
            if tls:
                client = hub.certificates.client_context().wrap_socket(client, server_hostname=url.hostname)
                plain[-1] = client
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        hub.wait_for_stalls()
        hub.wait_for(lambda ledger: ledger.bytes_sent("big.bin") > 0)
        assert len(plain) == 3
    for client in plain:
        client.close()
    assert set(threading.enumerate()) <= before


def test_the_next_hub_starts_at_once_on_the_same_hosts() -> None:
    for _ in range(20):
        with FaultHub() as hub:
            assert get(hub.add_file("a", b"a")).body == b"a"
    assert not hub_threads()

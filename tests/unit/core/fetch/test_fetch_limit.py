"""How many connections, how long to wait, and which digests: the small rules of a transfer."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import digests, retry
from nimctl.core.fetch.http import errors as http_errors
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.protocol import Interrupted, Progress
from nimctl.core.fetch.retry import Patience, Stop, persist
from nimctl.core.fetch.transfer.limit import MOST, START, Limit
from nimctl.core.fetch.transfer.meter import Meter

HOUR = 1200  # observations, three seconds apart


def settled(rate_of) -> int:
    """The number of connections after an hour, where `rate_of(connections)` is the throughput."""
    limit, total = Limit(), 0
    for tick in range(HOUR):
        limit.observe(tick * 3.0, total)
        total += int(rate_of(limit.value) * 3)
    return limit.value


def test_connections_are_added_as_long_as_each_brings_more():
    assert settled(lambda n: n * 10e6) == MOST


def test_connections_that_bring_nothing_are_given_up_again():
    assert settled(lambda _: 100e6) <= START + 2
    assert settled(lambda n: min(n, 12) * 10e6) in range(10, 17)


def test_a_complaint_halves_and_many_at_once_count_as_one():
    limit = Limit()
    for _ in range(8):
        limit.complain(100.0)
    assert limit.value == START // 2
    limit.complain(110.0)
    assert limit.value == START // 4


@given(st.lists(st.one_of(st.tuples(st.floats(0, 30), st.integers(0, 10**10)), st.none()), max_size=80))
def test_there_is_always_one_connection_and_never_too_many(events):
    limit, now, total = Limit(), 0.0, 0
    for event in events:
        if event is None:
            limit.complain(now)
        else:
            now, total = now + event[0], total + event[1]
            limit.observe(now, total)
        assert 1 <= limit.value <= MOST


@given(st.integers(1, 50), st.one_of(st.none(), st.floats(0, 300)))
def test_a_pause_is_what_the_server_asked_for_or_grows_to_the_longest(failures, asked):
    pause = Patience().pause(failures, asked)
    if asked is not None:
        assert asked <= pause <= asked + 0.25
    else:
        assert 0 <= pause <= 25
        assert (pause == 0) == (failures == 1)


def test_patience_ends_with_the_last_reason_and_a_stop_ends_it_at_once():
    calls = []

    def fail() -> None:
        calls.append(1)
        raise Interrupted("no route", id="weights-source-unreachable")

    with pytest.raises(NimctlError) as caught:
        persist(fail, "the list", Patience(attempts=3, first=0.0))
    assert (caught.value.id, len(calls)) == ("weights-source-unreachable", 3)
    assert "no route, 3 times in a row" in caught.value.cause
    stop = Stop()
    stop.set()
    with pytest.raises(NimctlError):
        persist(fail, "the list", replace(retry.DEFAULT, stop=stop))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "100000"}, 300.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        (
            {"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"},
            9.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_by_the_servers_own_clock(headers, expected):
    assert http_errors.retry_after(headers) == expected


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:xyz", "a" * 64, "sha512:" + "a" * 128, "md5:" + "a" * 31])
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(ValueError, match="not a digest"):
        digests.parse(text)


@given(st.binary(max_size=2000))
def test_digests_are_those_of_the_known_tools(content):
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    for text, name in (
        (f"sha256:{hashlib.sha256(content).hexdigest()}", True),
        (f"git-sha1:{git.upper()}", True),
        (f"md5:{hashlib.md5(content).hexdigest()}", False),
    ):
        digest = digests.parse(text)
        hasher = digest.hasher(len(content))
        hasher.update(memoryview(content))
        assert hasher.hexdigest() == digest.hex
        assert digests.of_blob_name(digest.hex) == (digest if name else None)


def test_the_meter_counts_a_shared_digest_once_and_ends_with_everything():
    same = "sha256:" + "a" * 64
    files = [File("a", 10, same), File("b", 10, same), File("c", 5)]
    seen = list[Progress]()
    meter = Meter(files, seen.append)
    meter.verifying(4, files[0])
    assert (seen[-1].bytes, seen[-1].total, seen[-1].phase) == (4, 15, "verifying")
    meter.finished()
    assert (seen[-1].bytes, seen[-1].phase) == (15, "done")
    assert {f.state for f in seen[-1].files} == {"done"}

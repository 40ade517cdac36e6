"""Waiting for a source that is asked: everybody hears of it, a wrong address is soon given up, a stop ends it."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from rich.console import Console

from entrypoint.weights import transfers
from entrypoint.weights.checkpoint import Checkpoint
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Patience, Progress, Stop, fetch, http
from nimctl.core.fetch.protocol import Interrupted
from nimctl.core.fetch.retry import DEFAULT, persist
from nimctl.render import Output
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import FaultHub, Status

URI = "hf://org/name"
FILES = {"config.json": b"{}", "model.safetensors": safetensors(1000)}
WAITS = Progress(0, phase="resolving", retries=1, detail="the server asks to wait 6 s (attempt 2 of 10)")


class Waiting(Stop):
    """A stop whose pauses are noted, and pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return self.is_set


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    with FaultHub() as hub:
        hub.add_repo("org/name", FILES)
        yield hub


def told(seen: list[Progress]) -> list[tuple[int, str | None]]:
    """Retries and words of what came before the transfer."""
    return [(one.retries, one.detail) for one in seen if one.phase == "resolving"]


def is_told(waits: list[tuple[int, str | None]], url: str) -> None:
    assert waits[0] == (0, None)
    assert [retries for retries, _ in waits[1:]] == [1, 2, 3]
    for attempt, (_, words) in enumerate(waits[1:], 2):
        start = f"the server asks to wait 6 s (attempt {attempt} of 10): {url}/api/models/org/name"
        assert words is not None and words.startswith(start)
        assert words.endswith("answered 429 (too many requests)")


def test_what_a_server_asks_to_wait_is_told_before_it_is_waited_for(hub, tmp_path):
    hub.fail("/api/*", Status(429, retry_after=6), times=3)
    seen: list[Progress] = []
    stop = Waiting()
    fetch(URI, tmp_path, access=Access(hf_endpoint=hub.url), on_progress=seen.append, stop=stop)
    is_told(told(seen), hub.url)
    assert [int(seconds) for seconds in stop.pauses[:3]] == [6, 6, 6]
    assert seen[-1].phase == "done"


def test_a_start_tells_of_it_too(hub, tmp_path):
    hub.fail("/api/*", Status(429, retry_after=6), times=3)
    seen: list[Progress] = []
    with closing(Checkpoint(URI, tmp_path, Access(hf_endpoint=hub.url), stop=Waiting())) as checkpoint:
        checkpoint.look(seen.append)
    is_told(told(seen), hub.url)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_a_host_that_takes_no_connection_is_named_and_soon_given_up(tmp_path):
    url = f"http://127.0.0.1:{closed_port()}"
    seen: list[Progress] = []
    patience = Patience(attempts=1000, first=0.01, unreachable=1.0)
    with pytest.raises(NimctlError) as caught:
        fetch(URI, tmp_path, access=Access(hf_endpoint=url), on_progress=seen.append, patience=patience)
    assert caught.value.id == "weights-source-unreachable"
    first = told(seen)[1][1]
    where = f"{url}/api/models/org/name/revision/main: Connection refused"
    assert first == f"next try at once (attempt 2 within 1 s): {where}"
    assert where in caught.value.cause


class Time:
    """A clock, and a stop whose pauses move it; an attempt takes `cost` seconds."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0.0, cost
        self.is_set = False

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def attempt(self) -> None:
        self.now += self.cost
        raise Interrupted("no name", id="weights-source-unreachable")


@pytest.mark.parametrize(("cost", "least"), [(0.0, 6), (1.0, 4), (5.0, 3), (10.0, 2), (30.0, 1)])
def test_nobody_is_asked_for_more_than_twenty_seconds_and_one_attempt(cost, least):
    time, told = Time(cost), list[str]()
    patience = replace(DEFAULT, stop=time, on_wait=told.append)
    with pytest.raises(NimctlError) as caught:
        persist(time.attempt, "the list", patience, clock=lambda: time.now)
    assert caught.value.id == "weights-source-unreachable"
    assert time.now <= 20 + cost
    assert len(told) + 1 >= least


def test_a_server_that_answered_meanwhile_is_borne_with_anew():
    time, calls = Time(4.0), list[int]()

    def attempt() -> None:
        calls.append(1)
        if len(calls) % 2:
            time.attempt()
        raise Interrupted("the connection broke")

    with pytest.raises(NimctlError):
        persist(attempt, "the list", replace(DEFAULT, stop=time), clock=lambda: time.now)
    assert len(calls) == DEFAULT.attempts


def test_amid_a_transfer_an_outage_is_borne_with_as_long_as_by_the_transfer():
    time, told = Time(10.0), list[str]()
    with pytest.raises(NimctlError):
        patience = replace(DEFAULT.amid_transfer, stop=time, on_wait=told.append)
        persist(time.attempt, "a token", patience, clock=lambda: time.now)
    assert len(told) == DEFAULT.attempts - 1
    assert told[0] == "next try at once (attempt 2 of 10): no name"


def test_what_failed_before_is_no_reason_why_a_host_is_not_reached():
    with closing(http.Client()) as client, pytest.raises(Interrupted) as caught:
        try:
            raise NimctlError("weights-offline", "x", cause="y", fix="z")
        except NimctlError:
            client.get(f"http://127.0.0.1:{closed_port()}/x")
    assert caught.value.reason.endswith("/x: Connection refused")


def test_a_stop_ends_a_long_wait_at_once(hub, tmp_path):
    hub.fail("/api/*", Status(429, retry_after=300))
    stop, ended = Stop(), list[NimctlError]()

    def on_progress(progress: Progress) -> None:
        if progress.retries:
            stop.set()

    def run() -> None:
        with pytest.raises(NimctlError) as caught:
            fetch(URI, tmp_path, access=Access(hf_endpoint=hub.url), on_progress=on_progress, stop=stop)
        ended.append(caught.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert [error.id for error in ended] == ["interrupted"]


def test_each_wait_is_a_line_of_json_and_one_of_the_terminal_log():
    written: list[dict[str, object]] = []
    lines = transfers.JsonLines(written.append, clock=lambda: 0.0)
    screen = io.StringIO()
    out = Output("pull", "human", Console(file=screen, width=200))
    with out.transfer("weights hf://org/name") as view:
        for progress in (Progress(0, phase="resolving"), WAITS, WAITS):
            lines.see(progress)
            view.report(progress)
    assert [line["detail"] for line in written] == [None, WAITS.detail]
    assert screen.getvalue().splitlines()[-2:] == [
        "weights hf://org/name  resolving",
        f"weights hf://org/name  resolving: {WAITS.detail}",
    ]

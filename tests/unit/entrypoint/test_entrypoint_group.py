"""Supervisors of a group: how they meet, what they refuse, and the one cause that all of them end with."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint import group
from entrypoint.engine.nodes import Role
from entrypoint.group import Over, Status, judging, wire
from entrypoint.group import follower as follower_module
from entrypoint.group import leader as leader_module
from entrypoint.group.facts import digest_of_weights, facts
from entrypoint.group.follower import Follower
from entrypoint.group.leader import Leader
from nimctl.core.engine_options import parse_options
from nimctl.core.errors import NimctlError

PATIENCE = 20.0
FACTS = {"the model": "demo", "--max-model-len": "4096"}
KILLED = NimctlError("engine-died", "the engine ended while serving with SIGKILL", cause="it was killed", fix="Look.")
ECHO = NimctlError(
    "engine-died",
    "the engine ended while serving with exit code 1",
    cause="RuntimeError: [../gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1234",
    fix="Look.",
)


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


@dataclass
class Node:
    """One supervisor's side, with what it heard."""

    side: Leader | Follower
    over: list[Over] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    status: Status = field(default_factory=lambda: Status("weights"))
    wanted: bool = True
    started: bool = False
    error: NimctlError | None = None
    thread: threading.Thread | None = None

    def ready(self, weights: str = "w") -> "Node":
        """Say that the weights are there, in a thread of its own."""

        def body() -> None:
            try:
                self.side.await_start(weights, wanted=lambda: self.wanted and not self.over, on_wait=self.waits.append)
                self.started = self.wanted and not self.over
            except NimctlError as error:
                self.error = error

        self.thread = threading.Thread(target=body, daemon=True)
        self.thread.start()
        return self

    def cause(self) -> NimctlError:
        error: NimctlError | None = until(lambda: self.over)[0].error
        assert error is not None
        return error


class Lab:
    """Nodes on the loopback."""

    def __init__(self) -> None:
        self.port = free_ports()
        self.nodes: list[Node] = []

    def node(
        self, rank: int, *, count: int = 2, patience: float = PATIENCE, port: int | None = None, **more: Any
    ) -> Node:
        role = Role(count, rank, "127.0.0.1", port or self.port)
        made = Node(None)  # type: ignore[arg-type]
        kind: Any = Follower if rank else Leader
        made.side = kind(
            role,
            {**FACTS, **{f"--{name}": value for name, value in more.items()}},
            status=lambda: made.status,
            on_over=made.over.append,
            on_word=made.words.append,
            patience=patience,
        )
        made.side.open()
        self.nodes.append(made)
        return made

    def group(self, count: int = 2) -> list[Node]:
        """All nodes, started."""
        made = [self.node(rank, count=count).ready() for rank in range(count)]
        until(lambda: all(node.started for node in made))
        return made


def free_ports() -> int:
    """A port that is free with the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    for node in sorted(made.nodes, key=lambda node: isinstance(node.side, Leader)):
        node.wanted = False
        node.side.close()
        if node.thread:
            node.thread.join(PATIENCE)


def cut(node: Node) -> None:
    """What a kill of the whole container does to its connection."""
    if isinstance(node.side, Follower):
        assert node.side._peer is not None
        node.side._left = True
        node.side._peer.socket.shutdown(socket.SHUT_RDWR)
    else:
        node.side._left = True
        for peer in node.side._members.values():
            peer.socket.shutdown(socket.SHUT_RDWR)


def test_engines_start_together_once_the_weights_of_all_are_there(lab: Lab) -> None:
    follower = lab.node(1, count=3).ready()
    until(lambda: any("waiting for the leader at 127.0.0.1" in words for words in follower.words))
    leader = lab.node(0, count=3).ready()
    until(lambda: any("waiting for node 2" in words for words in leader.waits))
    late = lab.node(2, count=3)
    late.status = Status("weights", "12 of 554 GB")
    until(lambda: any("12 of 554 GB" in words for words in leader.waits))
    assert not (leader.started or follower.started)
    late.ready()
    until(lambda: leader.started and follower.started and late.started)
    idle = leader.side.others_idle()
    assert idle is not None and idle < group.SILENCE


def test_a_follower_hears_where_the_leader_is(lab: Lab) -> None:
    leader, follower = lab.group()
    leader.status = Status("warmup", "text", idle=3.0, ready=True)
    until(lambda: follower.side.leader().ready)
    assert follower.side.leader() == Status("warmup", "text", 3.0, True)
    assert (follower.side.others_idle() or 0) >= 3.0


@pytest.mark.parametrize(
    ("rank", "more", "said"),
    [
        (1, {"max-model-len": "8192"}, "--max-model-len is 8192 there and 4096 on the leader"),
        (1, {"dtype": "half"}, "--dtype is half there and not set on the leader"),
        (2, {}, "nodes is 3 there and 2 on the leader"),
    ],
    ids=["differs", "more", "count"],
)
def test_a_node_that_does_not_fit_is_refused_with_the_difference(
    lab: Lab, rank: int, more: dict[str, Any], said: str
) -> None:
    leader = lab.node(0).ready()
    refused = lab.node(rank, count=3 if rank == 2 else 2, **more)
    error = refused.cause()
    assert error.id == "node-refused" and (said in error.cause or "ranks of followers" in error.cause)
    until(lambda: any("was refused" in words for words in leader.waits))
    assert not leader.over, "the leader goes on waiting for one that fits"
    assert lab.node(1).ready() and until(lambda: leader.started)


def test_a_rank_that_is_taken_is_refused_and_the_first_stays(lab: Lab) -> None:
    leader, _ = lab.group()
    error = lab.node(1).cause()
    assert error.id == "node-refused" and "rank 1 is taken by node 1" in error.cause
    assert not leader.over


def test_other_weights_are_refused_before_an_engine_starts(lab: Lab) -> None:
    leader, follower = lab.node(0).ready("ours"), lab.node(1).ready("theirs")
    error = follower.cause()
    assert error.id == "node-refused" and "other files" in error.cause
    assert not leader.started and not follower.started


def test_a_node_that_never_comes_is_told_by_both_sides(lab: Lab) -> None:
    leader = lab.node(0, patience=0.5).ready()
    error = until(lambda: leader.error)
    assert error.id == "node-unreachable" and "node 1 of 2 did not come" in error.message
    lonely = lab.node(1, patience=0.5, port=free_ports())
    error = lonely.cause()
    assert error.id == "node-unreachable" and "Connection refused" in error.cause


def test_before_the_start_nodes_may_come_and_go(lab: Lab) -> None:
    leader = lab.node(0).ready()
    first = lab.node(1)
    until(lambda: any("is here" in words for words in leader.words))
    cut(first)
    until(lambda: any("has left" in words for words in leader.words))
    second = lab.node(1).ready()
    until(lambda: leader.started and second.started)
    assert not leader.over


def test_the_first_failure_is_the_cause_on_every_node(lab: Lab) -> None:
    leader, one, two = lab.group(3)
    answers: list[NimctlError] = []
    waiting = threading.Thread(target=lambda: answers.append(leader.side.fail(ECHO, echo=True)))
    waiting.start()  # it lost its partner, and waits for a word of whoever died first
    told = one.side.fail(KILLED, echo=False)
    waiting.join(PATIENCE)
    causes = [told, *answers, leader.cause(), two.cause()]
    assert {(error.id, error.cause) for error in causes} == {("engine-died", "it was killed")}
    assert all(error.message.startswith("node 1 (") for error in causes)


def test_what_only_looks_like_an_echo_is_the_cause_when_nobody_has_a_better(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "GRACE", 0.3)
    leader, follower = lab.group()
    told = follower.side.fail(ECHO, echo=True)
    assert told.cause == leader.cause().cause == ECHO.cause


def test_a_follower_that_is_killed_is_named_within_seconds(lab: Lab) -> None:
    leader, follower = lab.group()
    cut(follower)
    error = leader.cause()
    assert error.id == "node-lost" and error.message.startswith("node 1 (") and "without a word" in error.cause


def test_a_leader_that_is_killed_is_named_and_our_echo_is_not_told(lab: Lab) -> None:
    leader, follower = lab.group()
    cut(leader)
    assert follower.cause().id == "node-lost"
    assert follower.side.fail(ECHO, echo=True).id == "node-lost"
    assert follower.side.fail(KILLED, echo=False).cause == "it was killed"


@pytest.mark.parametrize("silent", ["leader", "follower"])
def test_silence_is_a_loss(lab: Lab, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = lab.group()
    quiet = nodes[0 if silent == "leader" else 1].side
    monkeypatch.setattr(leader_module, "SILENCE", 1.0)
    monkeypatch.setattr(follower_module, "SILENCE", 1.0)
    monkeypatch.setattr(leader_module, "BEAT", 0.1)
    monkeypatch.setattr(follower_module, "BEAT", 0.1)
    monkeypatch.setattr(quiet, "_tick" if silent == "leader" else "_beat", lambda _: None)
    error = nodes[1 if silent == "leader" else 0].cause()
    assert error.id == "node-lost" and "no sign of life" in error.cause


def test_a_stop_of_the_leader_lets_all_go_in_order(lab: Lab) -> None:
    leader, follower = lab.group()
    leader.side.stop()
    leader.side.close()
    assert until(lambda: follower.over) == [Over(None, "the leader stops")]


def test_a_stop_of_a_follower_is_the_leaders_to_carry_out(lab: Lab) -> None:
    leader, follower = lab.group()
    follower.side.stop()
    assert "was told to stop" in until(lambda: leader.over)[0].told
    assert leader.over[0].error is None and not follower.over, "it waits for the running requests"
    leader.side.stop()
    assert until(lambda: follower.over)[0].error is None


def test_strangers_are_shown_the_door_and_change_nothing(lab: Lab) -> None:
    leader, follower = lab.group()
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100_000,
        b"[1]\n",
        b'{"kind":"end"}\n',
        b"[" * 60_000 + b"\n",
    ):
        with socket.create_connection(("127.0.0.1", lab.port + 1), timeout=PATIENCE) as stranger, suppress(OSError):
            stranger.sendall(nonsense)
            assert stranger.recv(1000) == b""
    crowd = [socket.create_connection(("127.0.0.1", lab.port + 1), timeout=PATIENCE) for _ in range(30)]
    assert crowd[0].recv(1) == b"", "so many are not kept waiting"
    for one in crowd:
        one.close()
    assert not leader.over and not follower.over


def hello(rank: int = 1, **more: Any) -> bytes:
    return wire.encode(
        "hello", **{"protocol": wire.PROTOCOL, "nodes": 2, "rank": rank, "host": "h", "facts": FACTS, **more}
    )


def calling(lab: Lab) -> socket.socket:
    return socket.create_connection(("127.0.0.1", lab.port + 1), timeout=PATIENCE)


@pytest.mark.parametrize(
    "said",
    [
        hello() + b'{"kind":"beat","idle":1' + b"0" * 400 + b"}\n",
        hello() + b'{"kind":"beat","idle":NaN}\n',
        hello() + wire.encode("failed", error={"id": []}),
        hello(9) + hello(),
    ],
    ids=["huge", "no-number", "unhashable", "after-a-refusal"],
)
def test_odd_words_do_not_end_the_leaders_hearing(lab: Lab, said: bytes) -> None:
    leader = lab.node(0).ready()
    with calling(lab) as odd:
        odd.sendall(said)
        assert odd.recv(1000)
    assert lab.node(1).ready() and until(lambda: leader.started)
    assert not leader.over


@pytest.mark.parametrize("broken", ["leader", "follower"])
def test_a_side_that_breaks_ends_the_group_with_that(lab: Lab, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = lab.group()

    def breaks(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(nodes[0 if broken == "leader" else 1].side, "_understand", breaks)
    for node in nodes:
        error = node.cause()
        assert error.id == "internal" and error.cause == "a mistake of ours"


def test_who_lost_us_first_may_call_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_module, "BEAT", 0.05)
    leader = lab.node(0).ready()
    with calling(lab) as dead:
        dead.sendall(hello())
        until(lambda: any("is here" in words for words in leader.words))
        until(lambda: time.monotonic() - leader.side._members[1].heard > 0.1)  # type: ignore[union-attr]
        again = lab.node(1).ready()
        until(lambda: leader.started and again.started)
    assert any("calls again" in words for words in leader.words) and not again.over


def test_many_refusals_are_told_shortly_and_seldom(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_module, "_REFUSALS_APART", 3600.0)
    leader = lab.node(0).ready()
    for _ in range(20):
        with calling(lab) as stranger:
            stranger.sendall(hello(host="h" * 4000, facts={"x" * 4000: "y"}))
            assert b"refused" in stranger.recv(1000)
    until(lambda: any("was refused" in words for words in leader.waits))
    told = [words for words in leader.words if "was refused" in words]
    assert len(told) == 1 and max(map(len, (*told, *leader.waits))) < 1100


def test_a_taken_port_is_told_at_once(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", lab.port + 1))
        taken.listen()
        with pytest.raises(NimctlError) as caught:
            lab.node(0)
    assert caught.value.id == "port-in-use"


@pytest.mark.parametrize(
    ("error", "lines", "echo"),
    [
        (ECHO, (), True),
        (KILLED, (), False),
        (KILLED, ("torch.distributed.DistBackendError: NCCL error in: ... remote process exited",), True),
        (ECHO, ("ERROR Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",), False),
        (NimctlError("engine-out-of-memory", "m", cause="Connection closed by peer", fix="f"), (), False),
    ],
)
def test_the_echo_of_anothers_death_is_told_from_a_cause(
    error: NimctlError, lines: tuple[str, ...], echo: bool
) -> None:
    assert judging.is_echo(error, lines) is echo


def test_an_error_crosses_the_wire_whole_and_nothing_else_does() -> None:
    sent = NimctlError("engine-died", "m", cause="c", fix="f", evidence=["one", "two"])
    found = wire.error_of(json.loads(json.dumps(sent.to_json())))
    assert found is not None and found.to_json() == sent.to_json()
    assert wire.error_of({"id": "no-such-id"}) is None and wire.error_of("text") is None
    odd = wire.error_of({"id": "engine-died", "message": "a\x1b[2Jb", "evidence": [1, {}]})
    assert odd is not None and odd.message == "a?[2Jb"


def test_facts_name_what_must_be_alike_and_leave_out_what_is_a_nodes_own(tmp_path: Path) -> None:
    options = parse_options(["--uds", "/a", "--node-rank", "1", "--max-model-len", "4096", "--enforce-eager"])
    found = facts(release="1", engine="0.32.0", model="demo", layout="tp2-pp1", gpus="2 x H200", options=options)
    assert found["--max-model-len"] == "4096" and found["--enforce-eager"] == "on"
    assert not {"--uds", "--node-rank"} & set(found)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(b"12")
    (tmp_path / "notes.txt").write_text("mine")
    before = digest_of_weights(tmp_path)
    (tmp_path / "notes.txt").unlink()
    assert digest_of_weights(tmp_path) == before
    (tmp_path / "a.safetensors").write_bytes(b"123")
    assert digest_of_weights(tmp_path) != before
    assert replace(Status(), ready=True).ready

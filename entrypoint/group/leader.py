"""The leader's side of a group: takes the others in, lets all engines start at once, and decides on the one cause."""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from entrypoint.engine.nodes import Role
from entrypoint.group import BEAT, GRACE, SILENCE, Over, Status, wire
from entrypoint.group.judging import ECHO, FIRST, LOST, Suspect, cause_of, difference, lost, of_node, refused
from entrypoint.group.peer import Peer, leave
from entrypoint.observability.failure import bug
from nimctl.core.errors import NimctlError

_TICK = 0.2
_HELLO_SECONDS = 10.0  # for a stranger to say who he is
# What is told of strangers who do not fit: so much, so often (seconds).
_LONGEST_WORDS = 1000
_REFUSALS_APART = 1.0


class Leader:
    """Rank 0. `facts` must be alike on every node; `patience` is how long the others may take to come, in seconds."""

    def __init__(
        self,
        role: Role,
        facts: Mapping[str, str],
        *,
        status: Callable[[], Status],
        on_over: Callable[[Over], None],
        on_word: Callable[[str], None],
        patience: float,
    ) -> None:
        self._role, self._facts, self._status, self._on_over, self._on_word = role, facts, status, on_over, on_word
        self._patience = patience
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._members: dict[int, Peer] = {}
        self._strangers: list[Peer] = []
        self._refusal = ""
        self._refused_at = float("-inf")
        self._weights: str | None = None
        self._started = self._left = False
        self._suspects: list[Suspect] = []
        self._judge_at = float("inf")
        self._verdict: NimctlError | None = None
        self._judged = threading.Event()
        self._beaten = 0.0
        self._thread = threading.Thread(target=self._run, name="group", daemon=True)

    def open(self) -> None:
        """Listen on every address, as the engine's own rendezvous does. Raises `port-in-use`."""
        try:
            _listen(self._role.port).close()
            self._listener = _listen(self._role.link_port)
        except OSError as error:
            raise NimctlError(
                "port-in-use",
                f"port {self._role.port} or {self._role.link_port} is taken",
                cause=str(error),
                fix="Stop what listens there, or set NIM_LEADER_PORT, on every node, to another port.",
            ) from error
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._thread.start()

    def await_start(self, weights: str, *, wanted: Callable[[], bool], on_wait: Callable[[str], None]) -> None:
        """Let all start together once the weights of each are there. Raises `node-unreachable`."""
        with self._lock:
            self._weights = weights
            for peer in tuple(self._members.values()):
                self._compare_weights(peer)
        since: float | None = None
        while wanted():
            with self._lock:
                missing = sorted(set(range(1, self._role.nodes)) - set(self._members))
                waiting = [p for _, p in sorted(self._members.items()) if p.weights is None]
                if not missing and not waiting:
                    self._started = True
                    self._tell(wire.encode("start"))
                    return
            since = (since or time.monotonic()) if missing else None
            if since is not None and time.monotonic() - since > self._patience:
                raise self._nobody(missing)
            on_wait("; ".join([*self._missing(missing), *(f"{p.name}: {p.where}" for p in waiting)]))
            time.sleep(_TICK)

    def _missing(self, ranks: list[int]) -> list[str]:
        names = ", ".join(map(str, ranks))
        why = f" ({self._refusal})" if self._refusal else ""
        return [f"waiting for node {names}{why}"] if ranks else []

    def _nobody(self, ranks: list[int]) -> NimctlError:
        names = ", ".join(map(str, ranks))
        return NimctlError(
            "node-unreachable",
            f"node {names} of {self._role.nodes} did not come within {self._patience:g} s",
            cause=self._refusal or f"nobody with that rank has called port {self._role.link_port} of this node",
            fix="Look at that node's log; its NIM_LEADER_ADDRESS must be this node's, and no firewall in between.",
        )

    def others_idle(self) -> float | None:
        """The least of the others."""
        with self._lock:
            return min((peer.idle for peer in self._members.values()), default=None)

    def leader(self) -> Status:
        """We are it."""
        return Status()

    def fail(self, error: NimctlError, *, echo: bool) -> NimctlError:
        """The cause of the group, which is told to all: ours, unless somebody else's was first."""
        with self._lock:
            self._suspect(ECHO if echo else FIRST, of_node("node 0, the leader", error))
        self._judged.wait(GRACE + 2 * _TICK)
        return self._verdict or error

    def stop(self) -> None:
        """Let the others go."""
        with self._lock:
            self._left = True
            if self._started:  # before that nobody depends on us: they wait for another leader
                self._tell(wire.encode("stop"))

    def close(self) -> None:
        """Say the rest, and hang up."""
        with self._lock:
            self._left = True
            peers = (*self._members.values(), *self._strangers)
        if self._thread.ident is not None:
            self._thread.join(5 * _TICK)
        leave([peer.socket for peer in peers])

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # without this thread no node would ever be told of anything
            with self._lock:
                self._suspect(FIRST, of_node("node 0, the leader", bug(error)))
        finally:
            self._listener.close()
            self._selector.close()

    def _serve(self) -> None:
        while not self._left:
            for key, _ in self._selector.select(_TICK):
                if key.data is None:
                    self._accept()
                else:
                    self._hear(key.data)
            with self._lock:
                if not self._left:
                    self._tick(time.monotonic())

    def _accept(self) -> None:
        with suppress(OSError):
            connection, address = self._listener.accept()
            connection.setblocking(False)
            peer = Peer(connection, str(address[0]).removeprefix("::ffff:"))
            with self._lock:
                if len(self._strangers) > self._role.nodes + 8:
                    self._forget(self._strangers[0])
                self._strangers.append(peer)
                self._selector.register(connection, selectors.EVENT_READ, peer)

    def _hear(self, peer: Peer) -> None:
        with self._lock:
            if peer.gone or self._left:
                return
            try:
                for message in peer.receive():
                    if not peer.gone:  # what follows on a refusal is not heard
                        self._understand(peer, message)
            except wire.WireError as error:
                self._lose(peer, f"something else than a node of this version talks from {peer.host}: {error}")
            except OSError as error:
                self._lose(peer, f"its connection ended without a word ({error}): its container or machine was stopped")

    def _understand(self, peer: Peer, message: Mapping[str, Any]) -> None:
        kind = message["kind"]
        if peer.rank is None:
            if kind != "hello":
                raise wire.WireError("no hello")
            self._welcome(peer, message)
        elif kind == "beat":
            peer.status = wire.status_of(message)
        elif kind == "weights":
            peer.weights = wire.text(message.get("digest"))
            self._compare_weights(peer)
        elif kind == "failed":
            if error := wire.error_of(message.get("error")):
                self._suspect(ECHO if message.get("echo") is True else FIRST, of_node(peer.name, error))
        elif kind == "stopping":
            self._on_word(f"{peer.name} was told to stop")
            if self._started:
                self._on_over(Over(None, f"{peer.name} was told to stop"))
            else:
                self._forget(peer)

    def _welcome(self, peer: Peer, hello: Mapping[str, Any]) -> None:
        rank = hello.get("rank")
        name = f"node {wire.text(rank)[:20]} ({wire.text(hello.get('host'))[:100] or peer.host}, {peer.host})"
        ours = {"nodes": str(self._role.nodes), **self._facts}
        theirs = {"nodes": wire.text(hello.get("nodes")), **wire.facts_of(hello.get("facts"))}
        if hello.get("protocol") != wire.PROTOCOL:
            why: str | None = "it is of another version"
        elif type(rank) is not int or not 0 < rank < self._role.nodes:
            why = f"its rank is {wire.text(rank)}, and ranks of followers are 1 to {self._role.nodes - 1}"
        else:
            why = difference(theirs, ours) or self._taken(rank, peer)
        if why is not None or type(rank) is not int:
            self._refuse(peer, name, why or "")
            return
        peer.rank, peer.name = rank, name
        self._strangers.remove(peer)
        self._members[rank] = peer
        self._refusal = ""
        self._on_word(f"{name} is here")
        peer.send(wire.encode("welcome"))
        if self._verdict is not None:
            peer.send(wire.encode("end", error=self._verdict.to_json()))

    def _taken(self, rank: int, peer: Peer) -> str | None:
        """Why this rank has no place for `peer`. Who lost us first calls again while we still hold its dead line."""
        there = self._members.get(rank)
        if there is None:
            return None
        silent = time.monotonic() - there.heard
        if self._started or there.host != peer.host or silent <= 2 * BEAT:
            return f"rank {rank} is taken by {there.name}"
        self._lose(there, f"no sign of life for {silent:.0f} s, and it calls again")
        return None

    def _compare_weights(self, peer: Peer) -> None:
        if None not in (peer.weights, self._weights) and peer.weights != self._weights:
            self._refuse(peer, peer.name, "its weights are other files than the leader's")

    def _refuse(self, peer: Peer, name: str, why: str) -> None:
        self._refusal = f"{name} was refused: {why}"[:_LONGEST_WORDS]
        if (now := time.monotonic()) - self._refused_at >= _REFUSALS_APART:  # anybody may call, as often as he likes
            self._refused_at = now
            self._on_word(self._refusal)
        with suppress(OSError):
            peer.send(wire.encode("refused", error=refused(name, why).to_json()))
        self._forget(peer)

    def _lose(self, peer: Peer, how: str) -> None:
        known = peer.rank is not None
        self._forget(peer)
        if known and self._started:
            self._suspect(LOST, lost(peer.name, how))
        elif known:
            self._on_word(f"{peer.name} has left: {how}")

    def _forget(self, peer: Peer) -> None:
        peer.gone = True
        with suppress(KeyError, ValueError):
            self._selector.unregister(peer.socket)
        leave([peer.socket], patient=False)
        if peer in self._strangers:
            self._strangers.remove(peer)
        if peer.rank is not None and self._members.get(peer.rank) is peer:
            del self._members[peer.rank]

    def _tick(self, now: float) -> None:
        if now - self._beaten >= BEAT:
            self._beaten = now
            self._tell(wire.beat(self._status()))
        for peer in (*self._strangers, *self._members.values()):
            silent = now - peer.heard
            if silent > (_HELLO_SECONDS if peer.rank is None else SILENCE):
                self._lose(peer, f"no sign of life for {silent:.0f} s: its machine hangs, or the network is cut")
        if self._suspects and now >= self._judge_at and self._verdict is None:
            self._judge()

    def _tell(self, message: bytes) -> None:
        for peer in tuple(self._members.values()):
            try:
                peer.send(message)
            except OSError as error:
                self._lose(peer, f"it does not take what we say: {error}")

    def _suspect(self, weight: int, error: NimctlError) -> None:
        if self._verdict is not None:
            return
        self._suspects.append(Suspect(weight, error))
        self._judge_at = min(self._judge_at, time.monotonic() + (GRACE if weight == ECHO else 0.0))
        if weight != ECHO:
            self._judge()

    def _judge(self) -> None:
        self._verdict = cause_of(self._suspects)
        self._tell(wire.encode("end", error=self._verdict.to_json()))
        self._judged.set()
        self._on_over(Over(self._verdict, self._verdict.message))


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))

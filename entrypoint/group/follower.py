"""A follower's side of a group: calls the leader until it is there, and ends when it says so or is lost."""

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from entrypoint.engine.nodes import Role
from entrypoint.group import BEAT, GRACE, SILENCE, Over, Status, wire
from entrypoint.group.judging import lost, of_node
from entrypoint.group.peer import Peer, leave
from entrypoint.observability.failure import bug
from nimctl.core.errors import NimctlError

_TICK = 0.2
_AGAIN = 1.0
_CONNECT_SECONDS = 5.0
_LEADER = "node 0, the leader"


class Follower:
    """Rank 1 and above. `patience` is how long the leader may take to come, in seconds; the rest as of `Leader`."""

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
        self._peer: Peer | None = None
        self._welcome = False
        self._waiting = ""
        self._weights: str | None = None
        self._started = threading.Event()
        self._over: Over | None = None
        self._verdict: NimctlError | None = None
        self._over_event = threading.Event()
        self._beaten = 0.0
        self._left = False
        self._thread = threading.Thread(target=self._run, name="group", daemon=True)

    def open(self) -> None:
        """Begin to call the leader."""
        self._thread.start()

    def await_start(self, weights: str, *, wanted: Callable[[], bool], on_wait: Callable[[str], None]) -> None:
        """Say that our weights lie ready, and wait for the leader's word; what goes wrong meanwhile ends the group."""
        with self._lock:
            self._weights = weights
            self._say_weights()
        while wanted() and not self._started.wait(_TICK):
            on_wait(self._waiting or f"waiting for the leader: {self.leader().stage or 'starting'}")

    def others_idle(self) -> float | None:
        """The leader's, which is all we know."""
        with self._lock:
            return self._peer.idle if self._peer else None

    def leader(self) -> Status:
        """What it said last."""
        with self._lock:
            return self._peer.status if self._peer else Status()

    def fail(self, error: NimctlError, *, echo: bool) -> NimctlError:
        """The cause of the group: what the leader makes of ours; our own when it is lost and ours is no echo."""
        with self._lock:
            told = self._peer is not None and self._welcome
            self._say(wire.encode("failed", error=error.to_json(), echo=echo))
        if told:
            self._over_event.wait(2 * GRACE if echo else GRACE)
        if self._verdict is not None:
            return self._verdict
        if echo and self._over is not None and self._over.error is not None:
            return self._over.error  # the leader is lost, and that is what the engine has died of
        return of_node(self._role.name, error)

    def stop(self) -> None:
        """Ask the leader to stop, which waits for the running requests."""
        with self._lock:
            self._say(wire.encode("stopping"))

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._left = True
            peer = self._peer
        if self._thread.ident is not None:
            self._thread.join(5 * _TICK)
        if peer is not None:
            leave([peer.socket])

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # without this thread nobody here would hear of the end
            cause = of_node(self._role.name, bug(error))
            with self._lock:
                self._say(wire.encode("failed", error=cause.to_json(), echo=False))
            self._verdict = cause
            self._end(cause)

    def _follow(self) -> None:
        since = time.monotonic()
        while not self._left and self._over is None:
            why = self._call() or self._listen()
            if self._welcome:
                since, self._welcome = time.monotonic(), False
            if not self._left and self._over is None:
                self._wait_for_the_leader(why, time.monotonic() - since)

    def _wait_for_the_leader(self, why: str, waited: float) -> None:
        where = f"{self._role.leader}:{self._role.link_port}"
        if not self._waiting:
            self._on_word(f"waiting for the leader at {where}: {why}")
        self._waiting = f"waiting for the leader at {where} since {waited:.0f} s: {why}"
        if waited > self._patience:
            self._end(
                NimctlError(
                    "node-unreachable",
                    f"the leader at {where} cannot be reached",
                    cause=f"{why}, for {waited:.0f} s",
                    fix="Start node 0; NIM_LEADER_ADDRESS must be its address, and no firewall in between.",
                )
            )
        self._over_event.wait(_AGAIN)

    def _call(self) -> str:
        """Connect and say hello. Why it did not work, in words, else nothing."""
        try:
            address = (str(self._role.leader), self._role.link_port)
            connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
        except (OSError, UnicodeError) as error:
            return str(getattr(error, "strerror", None) or error)
        connection.setblocking(False)
        peer = Peer(connection, str(self._role.leader))
        hello = wire.encode(
            "hello",
            protocol=wire.PROTOCOL,
            nodes=self._role.nodes,
            rank=self._role.rank,
            host=socket.gethostname(),
            facts=dict(self._facts),
        )
        with self._lock:
            self._peer, self._welcome = peer, False
            self._say(hello)
        return ""

    def _listen(self) -> str:
        """Hear what the leader says until the connection or the group ends. Why it ended, in words."""
        while not self._left and self._over is None and (peer := self._peer) is not None:
            try:
                if select.select([peer.socket], [], [], _TICK)[0]:
                    for message in peer.receive():
                        if self._over is None:
                            self._understand(message)
                self._beat(peer)
            except (OSError, ValueError) as error:
                why = f"its connection ended without a word ({error}): its container or machine was stopped"
            except wire.WireError as error:
                why = f"what answers there is no leader of this version: {error}"
            else:
                if (silent := time.monotonic() - peer.heard) <= SILENCE:
                    continue
                why = f"no sign of life for {silent:.0f} s: its machine hangs, or the network is cut"
            self._lose(why)
            return why
        return "the connection has ended"

    def _beat(self, peer: Peer) -> None:
        now = time.monotonic()
        if self._welcome and now - self._beaten >= BEAT:
            self._beaten = now
            with self._lock:
                peer.send(wire.beat(self._status()))

    def _understand(self, message: Mapping[str, Any]) -> None:
        kind = message["kind"]
        if kind == "welcome":
            with self._lock:
                self._welcome, self._waiting = True, ""
                self._say_weights()
            self._on_word(f"the leader at {self._role.leader} takes us in as {self._role.name}")
        elif kind == "beat" and self._peer:
            self._peer.status = wire.status_of(message)
        elif kind == "start":
            self._started.set()
        elif kind in ("refused", "end"):
            cause = wire.error_of(message.get("error")) or lost(_LEADER, "it ended the group without a reason")
            self._verdict = cause
            self._end(cause)
        elif kind == "stop":
            self._finish(Over(None, "the leader stops"))

    def _lose(self, how: str) -> None:
        with self._lock:
            peer, self._peer = self._peer, None
        if peer is not None:
            leave([peer.socket], patient=False)
        if self._started.is_set() and not self._left and self._over is None:
            self._end(lost(_LEADER, how))

    def _say_weights(self) -> None:
        if self._weights is not None and self._welcome:
            self._say(wire.encode("weights", digest=self._weights))

    def _say(self, message: bytes) -> None:
        if self._peer is not None:
            with suppress(OSError):  # heard of when the connection is read
                self._peer.send(message)

    def _end(self, error: NimctlError) -> None:
        self._finish(Over(error, error.message))

    def _finish(self, over: Over) -> None:
        self._over = over
        self._over_event.set()
        self._on_over(over)

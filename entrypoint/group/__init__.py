"""The supervisors of one engine over several nodes: they meet before their engines do, and end together with one cause.

What happens between them, on the leader's port beside the engine's own (`Role.link_port`):

    follower                          leader
    hello (rank, facts) ------------>  welcome, or refused with the reason
    beat  <------------------------->  beat               every 2 s: stage, how long nothing moved, ready
    weights (digest) --------------->                      its weights lie ready
           <-------------------------  start               when those of all do: the engines start now
    failed (error) ----------------->  end (error)         the one cause, to every node
    stopping ----------------------->  stop                in order, after the running requests

Nobody is authenticated, as nobody is between the engine's own processes, which exchange pickled objects over TCP: the
network between the nodes must be private (https://docs.vllm.ai/en/stable/usage/security.html). What is read here is
JSON, a bounded line at a time; who lies can end the group, and nothing more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nimctl.core.errors import NimctlError

# A sign of life goes out this often, and whoever gives none for so long is lost. Seconds.
BEAT = 2.0
SILENCE = 15.0
# How long a death that looks like the echo of another waits for the word of whoever died first.
GRACE = 5.0


@dataclass(frozen=True)
class Status:
    """Where a node is: the running stage and its detail, seconds for which nothing moved, and whether it serves."""

    stage: str = ""
    detail: str = ""
    idle: float = 0.0
    ready: bool = False


@dataclass(frozen=True)
class Over:
    """The group ends: for this cause, or in order because somebody was told to stop (`error` is None)."""

    error: NimctlError | None
    told: str


class Group(Protocol):
    """One node's side. Every method may be called from any thread."""

    def open(self) -> None:
        """Begin to listen, or to call the leader. Raises `port-in-use`."""

    def await_start(self, weights: str, *, wanted: Callable[[], bool], on_wait: Callable[[str], None]) -> None:
        """Say that our weights lie ready, and return when every node's do, or once it is no longer `wanted`.

        Raises `node-unreachable`.
        """

    def others_idle(self) -> float | None:
        """Seconds for which nothing moved on any other node; None where nobody tells."""

    def leader(self) -> Status:
        """What the leader said last; on the leader itself, nothing."""

    def fail(self, error: NimctlError, *, echo: bool) -> NimctlError:
        """Say that this node has failed, and return the one cause of the group.

        `echo` tells that the failure looks like that of somebody else: then theirs goes before ours.
        """

    def stop(self) -> None:
        """As the leader: let the others go. As a follower: ask the leader to stop, which then says that it is over."""

    def close(self) -> None:
        """Leave: what was said goes out, and nothing more is heard."""

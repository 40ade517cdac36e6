"""Which of several failures was the first, and whether two nodes fit together. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nimctl.core.errors import NimctlError

# What an engine writes when another node is gone: true, and no cause.
_ECHO = re.compile(
    r"Connection (closed|reset) by (remote )?peer|connectFullMesh|gloo.*(timed? ?out|peer|refused)"
    r"|DistBackendError|DistNetworkError|DistStoreError|TCPStore|NCCL (error|WARN)|ncclRemoteError|ncclSystemError"
    r"|Watchdog caught collective|RPC call to .* timed out|recvValue failed|Broken pipe",
    re.IGNORECASE,
)
# A worker that was killed here died first, whatever the others wrote when they lost it.
_KILLED_HERE = re.compile(r"died unexpectedly \(exit code: -\d+\)")
FIRST, LOST, ECHO = 0, 1, 2


@dataclass(frozen=True)
class Suspect:
    """A failure that may be the cause; `weight` is FIRST, LOST (gone without a word) or ECHO."""

    weight: int
    error: NimctlError


def is_echo(error: NimctlError, lines: Iterable[str] = ()) -> bool:
    """Whether the death of an engine looks like that of somebody who lost a partner; `lines` are its last."""
    if error.id != "engine-died":
        return False
    said = [error.cause, *error.evidence, *lines]
    return not any(map(_KILLED_HERE.search, said)) and any(map(_ECHO.search, said))


def cause_of(suspects: Iterable[Suspect]) -> NimctlError:
    """The one that was first: of what is known for certain the earliest."""
    return min(suspects, key=lambda suspect: suspect.weight).error


def of_node(name: str, error: NimctlError) -> NimctlError:
    """The error of another node, under its id, with the node's name."""
    if error.message.startswith("node "):
        return error
    return NimctlError(error.id, f"{name}: {error.message}", cause=error.cause, fix=error.fix, evidence=error.evidence)


def lost(name: str, how: str) -> NimctlError:
    """Somebody is gone and has left no word."""
    return NimctlError(
        "node-lost",
        f"{name} is gone",
        cause=how,
        fix="Look at the log and the machine of that node (killed, rebooted, cut off), then start all nodes again.",
    )


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """The first fact in which two nodes differ that must be alike; None where they fit."""
    for name in dict.fromkeys((*ours, *theirs)):
        here, there = ours.get(name, "not set"), theirs.get(name, "not set")
        if here != there:
            return f"{name} is {there[:300]} there and {here[:300]} on the leader"
    return None


def refused(name: str, cause: str) -> NimctlError:
    """The leader does not take this node."""
    return NimctlError(
        "node-refused",
        f"the leader refuses {name}",
        cause=cause,
        fix="Start every node with the same image, model and arguments, each with a rank of its own (NIM_NODE_RANK).",
    )

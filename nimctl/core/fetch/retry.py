"""How long a failing source is borne with: attempts, pauses between them, and the error when patience ends."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.protocol import Interrupted

T = TypeVar("T")

_FIXES = {
    "weights-source-unreachable": "Check the network, the name server and HTTPS_PROXY (`nimctl doctor`); what was "
    "fetched is kept, so run it again.",
    "weights-source-failed": "Run it again later: what was fetched is kept. If it goes on, the source or a proxy on "
    "the way to it is broken.",
}


@dataclass(frozen=True)
class Patience:
    """`attempts` in a row without one new byte; pauses in seconds grow from `first` to `longest`.

    The first repetition comes at once, as a cut connection is usually just that. The defaults bear with an outage of
    about a minute and a half.
    """

    attempts: int = 10
    first: float = 0.5
    longest: float = 20.0

    def pause(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after `failures` failures in a row: what the server asked for, else our own growing pause."""
        if retry_after is not None:
            return retry_after + random.uniform(0, 0.25)  # noqa: S311 (spreads clients, hides nothing)
        if failures <= 1:
            return 0.0
        return min(self.longest, self.first * 2.0 ** (failures - 2)) * random.uniform(0.75, 1.25)  # noqa: S311


DEFAULT = Patience()


class Stop:
    """Whether to go on: set by whoever no longer wants the result; pauses end at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Stop."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """True once stopped."""
        return self._event.is_set()

    def pause(self, seconds: float) -> bool:
        """Wait; True when it was stopped meanwhile."""
        return self._event.wait(seconds)


def persist(action: Callable[[], T], what: str, patience: Patience, stop: Stop | None = None) -> T:
    """The result of `action`, tried again when it is `Interrupted`. Raises its error when patience ends."""
    stop = stop or Stop()
    for failures in range(1, patience.attempts + 1):
        try:
            return action()
        except Interrupted as interruption:
            if failures == patience.attempts or stop.pause(patience.pause(failures, interruption.retry_after)):
                raise given_up(what, interruption, failures) from interruption
    raise AssertionError("a patience of no attempts")


def given_up(what: str, last: Interrupted, failures: int) -> NimctlError:
    """The error for `what` (such as "the file list of org/name") after the last of so many failures in a row."""
    return NimctlError(
        last.id,
        f"{what} could not be fetched",
        cause=f"{last.reason}, {failures} times in a row",
        fix=_FIXES[last.id],
    )

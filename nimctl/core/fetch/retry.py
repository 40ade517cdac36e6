"""How long a failing source is borne with: attempts, pauses between them, and the error when patience ends."""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.protocol import Interrupted

T = TypeVar("T")
OnWait = Callable[[str], None]  # what is waited for, in words; called from several threads

_UNREACHABLE = "weights-source-unreachable"
_FIXES = {
    _UNREACHABLE: "Check the network, the name server and HTTPS_PROXY (`nimctl doctor`); what was "
    "fetched is kept, so run it again.",
    "weights-source-failed": "Run it again later: what was fetched is kept. If it goes on, the source or a proxy on "
    "the way to it is broken.",
}


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


@dataclass(frozen=True)
class Patience:
    """`attempts` in a row without one new byte; pauses in seconds grow from `first` to `longest`.

    The first repetition comes at once, as a cut connection is usually just that. The defaults bear with an outage of
    about a minute and a half; a host that has no name or takes no connection is asked for `unreachable` seconds only,
    as a wrong address is likelier than an outage while nothing was fetched yet. `stop` ends the pauses of `persist`,
    and `on_wait` hears of them.
    """

    attempts: int = 10
    first: float = 0.5
    longest: float = 20.0
    unreachable: float = 20.0
    stop: Stop | None = None
    on_wait: OnWait | None = None

    def pause(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after `failures` failures in a row: what the server asked for, else our own growing pause."""
        if retry_after is not None:
            return retry_after + random.uniform(0, 0.25)  # noqa: S311 (spreads clients, hides nothing)
        if failures <= 1:
            return 0.0
        return min(self.longest, self.first * 2.0 ** (failures - 2)) * random.uniform(0.75, 1.25)  # noqa: S311

    @property
    def amid_transfer(self) -> "Patience":
        """The patience for what is asked while files arrive: an outage must not end what has run for hours."""
        return replace(self, unreachable=math.inf)


DEFAULT = Patience()


def persist(
    action: Callable[[], T], what: str, patience: Patience, *, clock: Callable[[], float] = time.monotonic
) -> T:
    """The result of `action`, tried again when it is `Interrupted`.

    Raises its error when patience ends, and `interrupted` when it is stopped.
    """
    stop = patience.stop or Stop()
    cut_off: float | None = None  # when the first of the latest attempts began that reached nobody
    for failures in range(1, patience.attempts + 1):
        begun = clock()
        try:
            return action()
        except Interrupted as interruption:
            pause = patience.pause(failures, interruption.retry_after)
            cut_off = (begun if cut_off is None else cut_off) if interruption.id == _UNREACHABLE else None
            left = math.inf if cut_off is None else patience.unreachable - (clock() - cut_off)
            if failures == patience.attempts or left <= 0:
                raise given_up(what, interruption, failures) from interruption
            pause = min(pause, left)
            if patience.on_wait:
                patience.on_wait(_in_words(interruption, pause, failures, patience))
            if stop.pause(pause):
                raise _stopped(what, interruption) from interruption
    raise AssertionError("a patience of no attempts")


def _in_words(why: Interrupted, pause: float, failures: int, patience: Patience) -> str:
    """What is waited for, such as `next try in 4.2 s (attempt 6 within 20 s): https://host/x: Connection refused`."""
    limited = why.id == _UNREACHABLE and math.isfinite(patience.unreachable)
    limit = f"within {patience.unreachable:.0f} s" if limited else f"of {patience.attempts}"
    attempt = f"(attempt {failures + 1} {limit})"
    # The reason comes last: it is the longest, and a terminal shows one line of all this.
    if why.retry_after is not None:
        return f"the server asks to wait {why.retry_after:.0f} s {attempt}: {why.reason}"
    return f"next try {f'in {pause:.1f} s' if pause else 'at once'} {attempt}: {why.reason}"


def _stopped(what: str, last: Interrupted) -> NimctlError:
    return NimctlError(
        "interrupted",
        f"{what} was no longer waited for",
        cause=f"somebody asked to stop, after: {last.reason}",
        fix="Run it again: it goes on where it stopped.",
    )


def given_up(what: str, last: Interrupted, failures: int) -> NimctlError:
    """The error for `what` (such as "the file list of org/name") after the last of so many failures in a row."""
    return NimctlError(
        last.id,
        f"{what} could not be fetched",
        cause=last.reason + (f", {failures} times in a row" if failures > 1 else ""),
        fix=_FIXES[last.id],
    )

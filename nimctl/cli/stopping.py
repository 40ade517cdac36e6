"""Ctrl-C and SIGTERM during long work that can be gone on with: it is asked to stop, and says how to go on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nimctl.cli.verb import Terminated
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Stop


@contextmanager
def stoppable() -> Iterator[tuple[Stop, Callable[[], None]]]:
    """A `Stop` that the two signals set, and what to call once the work listens to it.

    Before that, and at the second signal, Ctrl-C interrupts as usual. Raises `terminated` in place of the work's
    `interrupted` where it was SIGTERM.
    """
    stop = Stop()
    listening, received = [False], [0]

    def begin() -> None:
        listening[0] = True

    def ask(number: int, _: FrameType | None) -> None:
        if not listening[0] or stop.is_set:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        received[0] = number
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, begin
    except NimctlError as error:
        if error.id == "interrupted" and received[0] == signal.SIGTERM:
            raise NimctlError(
                "terminated", error.message, cause="another process asked for it", fix=error.fix
            ) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Looking at several things at once, none of which can hold up the others."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Looks:
    """Looks that run side by side, each in a thread of its own and called by a name.

    A look that never returns (a driver, a daemon or a network mount that hangs) is left behind: its thread is a
    daemon thread, so it does not keep the program from ending. `deadline` is of `time.monotonic`.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._running: dict[str, _Look] = {}
        self.problems: list[str] = []

    def allow_until(self, deadline: float) -> None:
        """Move the deadline to `deadline` where that is later."""
        self._deadline = max(self._deadline, deadline)

    def start(self, name: str, look: Callable[[], Any]) -> None:
        """Begin with a look."""
        self._running[name] = _Look(name, look)

    def answer(self, name: str, failed: T, *, late: T | None = None) -> T:
        """What the look of this name saw, which is of the kind of `failed`.

        Else `failed`, or `late` when it did not answer in time, and a line in `problems`; `failed` alone when no such
        look was started.
        """
        look = self._running.get(name)
        if look is None:
            return failed
        if not look.done.wait(max(0.0, self._deadline - time.monotonic())):
            self.problems.append(f"{name}: no answer in time")
            return failed if late is None else late
        if look.problem is not None:
            self.problems.append(f"{name}: {look.problem}")
            return failed
        seen: T = look.value
        return seen


class _Look:
    def __init__(self, name: str, look: Callable[[], Any]) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.problem: str | None = None
        self._look = look
        threading.Thread(target=self._run, name=f"doctor-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self.value = self._look()
        except Exception as error:  # whatever goes wrong in a look is a fact about the host
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self.done.set()

"""Looking at several things at once, none of which can hold up the others."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Probe(Generic[T]):
    """A look that has started in a thread of its own.

    A look that never returns (a driver, a daemon or a network mount that hangs) is left behind: its thread is a
    daemon thread, so it does not keep the program from ending.
    """

    def __init__(self, name: str, look: Callable[[], T]) -> None:
        self.name = name
        self._look = look
        self._done = threading.Event()
        self._value: T | None = None
        self._problem: str | None = None
        threading.Thread(target=self._run, name=f"doctor-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._look()
        except Exception as error:  # whatever goes wrong in a look is a fact about the host
            self._problem = f"{type(error).__name__}: {error}"
        finally:
            self._done.set()

    def answer(self, deadline: float, *, late: T, failed: T, problems: list[str]) -> T:
        """What was seen by `deadline` (of `time.monotonic`); else `late` or `failed`, and a line in `problems`."""
        if not self._done.wait(max(0.0, deadline - time.monotonic())):
            problems.append(f"{self.name}: no answer in time")
            return late
        if self._problem is not None:
            problems.append(f"{self.name}: {self._problem}")
            return failed
        return cast(T, self._value)

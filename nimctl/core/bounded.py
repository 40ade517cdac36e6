"""A time limit for looks that have none of their own, such as the system's resolver."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, look: Callable[[], T], late: str) -> T:
    """What `look` returns or raises. Raises TimeoutError with `late` after that time, and leaves the look behind."""
    done = threading.Event()
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # it is raised again below
            raised.append(error)
        done.set()

    threading.Thread(target=run, name="bounded-look", daemon=True).start()
    if not done.wait(max(0.0, seconds)):
        raise TimeoutError(f"{late} within {seconds:.1f} s")
    if raised:
        raise raised[0]
    return found[0]

"""Asking a driver many things of which some may never be answered, without losing the answers to the others."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Seconds without any answer after which the question is left behind and another thread goes on with the next one.
# A healthy GPU answers everything in milliseconds, a sleeping one (no persistence mode) in about a second.
STALL = 0.5


def ask_each(questions: Sequence[Callable[[], T]], until: float | None, stall: float = STALL) -> list[T | None]:
    """The answers in order; None for what was not answered by `until` (of `time.monotonic`).

    Without `until` they are asked one after the other by the caller, however long that takes. With it they are asked by
    a thread; when one hangs, the thread is left to it (a daemon thread does not keep the program alive) and a new one
    goes on. A question must not raise.
    """
    if until is None:
        return [question() for question in questions]
    answers: list[T | None] = [None] * len(questions)
    todo = iter(range(len(questions)))
    answered, started = 0, 0
    before: int | None
    state = threading.Condition()

    def work() -> None:
        nonlocal answered, started
        while True:
            with state:
                index = next(todo, None)
                if index is None:
                    return
                started += 1
            answer = questions[index]()
            with state:
                answers[index] = answer
                answered += 1
                if answered == len(questions):
                    state.notify()

    with state:
        before = None  # how many were answered at the last look
        while answered < len(questions) and (left := until - time.monotonic()) > 0:
            if answered == before and started == len(questions):
                state.wait(left)  # all have been asked: nothing is left but to wait
                break
            if before in (answered, None):
                threading.Thread(target=work, name="nvml", daemon=True).start()
            before = answered
            state.wait(min(left, stall))
        return list(answers)

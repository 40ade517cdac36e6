"""Questions of which some are never answered."""

import threading
import time

import pytest

from nimctl.core.gpus.stalls import ask_each


@pytest.fixture
def never():
    """A question that is not answered before the test ends."""
    done = threading.Event()
    yield lambda: done.wait(60) and None
    done.set()


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_without_a_limit_the_caller_asks_in_order() -> None:
    threads: list[str] = []

    def question(number: int):
        def ask() -> int:
            threads.append(threading.current_thread().name)
            return number

        return ask

    assert ask_each([question(i) for i in range(3)], None) == [0, 1, 2]
    assert set(threads) == {threading.current_thread().name}


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_with_a_limit_the_answers_are_in_order_too(count: int) -> None:
    assert ask_each([lambda i=i: i for i in range(count)], soon(60)) == list(range(count))


def test_a_question_that_hangs_loses_only_its_own_answer(never) -> None:
    questions = [lambda: 1, never, lambda: 3, never, lambda: 5]
    assert ask_each(questions, soon(1.0), stall=0.05) == [1, None, 3, None, 5]


def test_when_all_hang_the_limit_holds(never) -> None:
    started = time.monotonic()
    assert ask_each([never] * 50, soon(0.3), stall=0.05) == [None] * 50
    assert time.monotonic() - started < 30


def test_no_more_threads_than_questions_hang(never) -> None:
    before = threading.active_count()
    assert ask_each([never], soon(0.5), stall=0.02) == [None]
    assert threading.active_count() <= before + 1


def test_a_limit_that_has_passed_leaves_nothing_asked() -> None:
    asked: list[int] = []
    assert ask_each([lambda: asked.append(1)], soon(-1)) == [None]
    assert not asked


def test_a_slow_answer_counts_while_the_others_are_asked() -> None:
    go = threading.Event()

    def slow() -> str:
        go.wait(60)
        return "slow"

    def last() -> str:
        go.set()
        return "last"

    assert ask_each([slow, last], soon(60), stall=0.05) == ["slow", "last"]

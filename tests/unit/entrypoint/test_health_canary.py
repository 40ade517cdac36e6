"""The canary: what it makes of answers, silence and counters, with a clock that the test moves."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.health.canary import Canary, Stillness, counters_at
from entrypoint.health.judging import Baseline, Probe, Reading
from entrypoint.unixhttp import Abort, Answer, UnreachableError, get_tcp, post_tcp
from tests.unit.entrypoint.service import until

SOUND = Baseline(Probe("/v1/completions", {}), Reading((-1.0,) * 20))
WELL = Answer(200, b'{"choices":[{"text":"x"}]}')
NAN = Answer(400, b"Out of range float values are not JSON compliant")


class Clock:
    """Every look at it is a step later, so that a round ends soon whatever it waits for."""

    def __init__(self, step):
        self.now = 0.0
        self._step = step

    def __call__(self):
        self.now += self._step
        return self.now


def canaries():
    """The threads in which canaries live."""
    return [t for t in threading.enumerate() if t.name == "canary"]


class Flight:
    """A canary in the air: what the engine answers, what its counters show, and what was said about it."""

    def __init__(self, answers=(), *, counters=lambda _: "same", work=None, timeout=0.02, step=1.0):
        self.asked, self.sick, self.doubts = [], [], []
        self.silent = threading.Event()
        self._answers = list(answers)
        self.canary = Canary(
            self.ask,
            counters,
            SOUND,
            interval=0.001,
            timeout=timeout,
            on_sick=self.sick.append,
            on_doubt=self.doubts.append,
            work=work,
            clock=Clock(step),
        )

    def ask(self, abort):
        self.asked.append(abort)
        answer = self._answers.pop(0) if self._answers else WELL
        if answer is None:
            self.silent.wait(30)
            raise UnreachableError("given up")
        return answer

    def __enter__(self):
        self.canary.start()
        return self

    def __exit__(self, *_):
        self.canary.stop()
        self.silent.set()
        until(lambda: not canaries())


def test_two_bad_answers_in_a_row_are_told_once():
    with Flight([WELL, NAN, NAN]) as flight:
        until(lambda: flight.sick)
        assert [e.id for e in flight.sick] == ["engine-answers-garbage"]
        assert "NaN" in flight.sick[0].cause
        assert len(flight.doubts) == 1
        until(lambda: not canaries())
        assert len(flight.asked) == 3, "it ends with that"


def test_a_single_bad_answer_is_forgotten():
    with Flight([NAN, WELL, NAN, WELL]) as flight:
        until(lambda: len(flight.asked) > 6)
        assert (flight.sick, len(flight.doubts)) == ([], 2)


def test_an_answer_that_tells_nothing_excuses_nobody():
    """A full server refuses a canary now and then; the bad answer before it was none the better."""
    busy = Answer(503, b"")
    with Flight([busy, NAN, busy, busy, NAN]) as flight:
        until(lambda: flight.sick)
        assert len(flight.asked) == 5


def test_a_bad_answer_does_not_shorten_the_patience():
    """Only after a silence is the next one enough when it is shorter."""
    looks = []
    with Flight([NAN, None], counters=lambda _: looks.append(0) or "same", timeout=0.1, step=0.005) as flight:
        until(lambda: len(looks) > 10)
        assert flight.sick == []


def test_silence_over_still_counters_is_a_hang():
    with Flight([None, None]) as flight:
        until(lambda: flight.sick)
        assert [e.id for e in flight.sick] == ["engine-hangs"]
        assert len(flight.asked) == 2


@pytest.mark.parametrize("kind", ["steps", "no counters", "work"])
def test_silence_under_load_is_no_hang(kind):
    """A queue, an engine without counters, one step that computes for minutes."""
    ticks = iter(range(10**9))
    counters = {"steps": lambda _: str(next(ticks)), "no counters": lambda _: "", "work": lambda _: "same"}[kind]
    looks = []
    work = (lambda: looks.append(0) or float(len(looks))) if kind == "work" else (lambda: looks.append(0) or 0.0)
    with Flight([None], counters=counters, work=work) as flight:
        until(lambda: len(looks) > 20)
        assert (flight.sick, flight.doubts, len(flight.asked)) == ([], [], 1)


@pytest.mark.parametrize("timeout", [0.02, 3.0, 120.0])
def test_a_hang_is_found_in_time_where_every_look_at_the_counters_waits_as_long_as_it_may(monkeypatch, timeout):
    """An engine that is stopped with its API server: the clock only moves with our own waiting."""
    clock, rounds = Clock(0.0), [0.0]

    class Over(threading.Event):
        def wait(self, seconds=None):
            if seconds is None:  # for a thread to begin
                return super().wait()
            clock.now += seconds
            return False

    def counters(seconds):
        clock.now += seconds

    flight = Flight([None, None], counters=counters, timeout=timeout)
    flight.canary._clock = clock
    monkeypatch.setattr(threading, "Event", Over)
    before = None
    for _ in range(2):
        before = flight.canary._round(before)
        rounds.append(clock.now)
        assert before.id == "engine-hangs"
    flight.silent.set()
    assert rounds == pytest.approx([0.0, timeout, 1.25 * timeout])


def test_off_with_an_interval_of_0():
    sick = []
    Canary(lambda _: NAN, lambda _: None, SOUND, interval=0, timeout=1, on_sick=sick.append).start()
    assert not canaries()


def test_stop_ends_the_request_and_says_nothing():
    with Flight([None, None], timeout=1000) as flight:
        until(lambda: flight.asked)
        flight.canary.stop()
        one, other = socket.socketpair()
        with one, other, pytest.raises(UnreachableError):
            flight.asked[0].watch(one)
        flight.silent.set()
        until(lambda: not canaries())
        assert flight.sick == []


def test_abort_ends_a_request_that_waits_for_its_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        abort, ended = Abort(), []

        def ask():
            with pytest.raises(UnreachableError):
                post_tcp(*silent.getsockname(), "/", {}, headers={}, timeout=60, abort=abort)
            ended.append(True)

        thread = threading.Thread(target=ask)
        thread.start()
        connection, _ = silent.accept()
        connection.recv(1)
        abort()
        thread.join(10)
        connection.close()
        assert ended
        with pytest.raises(UnreachableError):
            get_tcp("127.0.0.1", 1, "/")


@given(st.lists(st.floats(0.1, 9.0), min_size=1, max_size=60))
def test_still_for_exactly_as_long_as_nothing_moves(gaps):
    still, now, quiet = Stillness(30.0), 0.0, 0.0
    assert not still.see(now, "a")
    for gap in gaps:
        now, quiet = now + gap, quiet + gap
        assert still.see(now, "a") == (quiet >= 30.0)


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.integers()), max_size=60))
def test_never_still_while_counters_move(looks):
    still, now = Stillness(1.0), 0.0
    for number, (gap, _) in enumerate(looks):
        now += gap
        assert not still.see(now, str(number))


def test_time_in_which_we_were_stopped_does_not_count():
    """After `docker unpause`, a suspend, or a jump of the clock, nothing has moved for an hour: neither have we."""
    still = Stillness(30.0)
    still.see(0.0, "a")
    assert not still.see(3600.0, "a")
    assert not still.see(3590.0, "a")
    assert not still.see(3599.0, "a")
    assert not still.see(3608.0, "a")
    assert not still.see(3617.0, "a")
    assert still.see(3626.0, "a")


def test_an_engine_that_does_not_even_tell_its_counters_stands_still():
    still = Stillness(10.0)
    assert [still.see(t, c) for t, c in ((0.0, "a"), (6.0, None), (12.0, "a"))] == [False, False, True]


def test_counters_of_an_engine_that_is_gone(tmp_path):
    assert counters_at(tmp_path / "none.sock")(5.0) is None

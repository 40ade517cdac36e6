"""A small request on a timer, which finds an engine that answers garbage or hangs while its own `/health` is green.

vLLM's `/health` tells that its processes exist (vllm/v1/engine/async_llm.py: check_health). It stays 200 while the
engine's core is stopped, waits for a collective operation for ever, or computes nothing but NaN.

A canary that waits is no sign of a hang: the queue may be long, and one step over a long prompt takes minutes on a
CPU. The engine hangs when for `timeout` seconds the canary was not answered, *and* no counter of the engine moved,
*and*, for an engine on the CPU, its processes did not work. A second canary must find the same before anybody is told.
"""

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from entrypoint.front import Front
from entrypoint.health.judging import Baseline, Verdict, judge
from entrypoint.health.warmup import HEADER, garbage
from entrypoint.unixhttp import Abort, Answer, UnreachableError, get_unix, post_tcp
from nimctl.core.errors import NimctlError

Ask = Callable[[Abort], Answer]
Look = Callable[[float], str | None]  # takes the seconds that it may wait

# How soon a first bad sign is looked at again: it is not left standing for a whole interval.
_AGAIN_SECONDS = 5.0
# The part of `timeout` that the second canary waits: that nothing moves was seen for the whole of it already.
_SECOND_PATIENCE = 0.25
# The front gives up after an hour of silence.
_LONGEST_ANSWER = 4000.0
_METRICS_SECONDS = 5.0
_PAUSE = 1.0
# The part of the patience that one look takes at most, and the pause before it: an engine that answers nothing at all
# is found as soon as one whose counters stand still.
_LOOK_SHARE = 0.25
# A look that comes later than this was not late because of the engine: we were stopped ourselves (`docker pause`).
_LONGEST_GAP = 2 * _METRICS_SECONDS
# The share of one core that a computing engine uses. Measured on the demo: 0.8 in a long prompt on a busy machine,
# 0.02 and 0.003 with its core or its worker stopped.
_WORKING = 0.2

_UNKNOWN = Verdict("unknown", "it was not answered")

# They move with every step of the scheduler, be it one chunk of a long prompt, and only then.
_COUNTERS = re.compile(
    rb"^vllm:(?:kv_cache_usage_perc|prompt_tokens_total|generation_tokens_total|iteration_tokens_total_count|"
    rb"num_requests_running|num_requests_waiting|num_preemptions_total|prefix_cache_queries_total)\b.*$",
    re.MULTILINE,
)


class Stillness:
    """Tells when an engine has done nothing for `patience` seconds. Pure: it is told what is seen and when."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._quiet = 0.0
        self._last: float | None = None
        self._counters: str | None = None
        self._work: float | None = None

    def see(self, now: float, counters: str | None, work: float | None = None) -> bool:
        """True once nothing moved for long enough.

        `counters` is None where the engine did not answer, and empty where it has none: then nothing can be said.
        `work` is how many seconds of CPU time its processes have used, None where that means nothing.
        """
        gap = now - self._last if self._last is not None else None
        self._last = now
        moved = counters is not None and (not counters or counters != self._counters)
        if gap is None or gap > _LONGEST_GAP or gap < 0 or moved:
            self._counters = counters if counters is not None else self._counters
            self._quiet, self._work = 0.0, work
            return False
        self._quiet += gap
        if self._quiet < self._patience:
            return False
        if work is not None and self._work is not None and abs(work - self._work) >= _WORKING * self._quiet:
            self._quiet, self._work = 0.0, work
            return False
        return True


class Canary:
    """Asks every `interval` seconds, in a thread of its own; calls `on_sick` at most once, and ends with that."""

    def __init__(
        self,
        ask: Ask,
        counters: Look,
        baseline: Baseline,
        *,
        interval: float,
        timeout: float,
        on_sick: Callable[[NimctlError], None],
        on_doubt: Callable[[str], None] = lambda _: None,
        on_flight: Callable[[bool], None] = lambda well: None,
        work: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` 0 is off. `on_doubt` gets a sentence about a first bad sign, or the reason of a lack of any.

        `on_flight` is told of each canary that tells anything whether all was well.
        """
        self._ask = ask
        self._counters = counters
        self._baseline = baseline
        self._interval = interval
        self._timeout = timeout
        self._on_sick = on_sick
        self._on_doubt = on_doubt
        self._on_flight = on_flight
        self._work = work
        self._clock = clock
        self._stopped = threading.Event()
        self._abort = Abort()

    def start(self) -> None:
        """Begin; the first canary flies after `interval` seconds."""
        if self._interval > 0:
            threading.Thread(target=self._run, name="canary", daemon=True).start()

    def stop(self) -> None:
        """End at once, with the request that is under way. It waits for nothing, and may be called twice."""
        self._stopped.set()
        self._abort()

    def _run(self) -> None:
        before: NimctlError | None = None
        while not self._stopped.wait(self._interval if before is None else min(self._interval, _AGAIN_SECONDS)):
            found = self._round(before)
            if self._stopped.is_set():
                return
            if isinstance(found, NimctlError):
                self._on_flight(False)
                if before is not None:
                    self._on_sick(found)
                    return
                self._on_doubt(f"{found.message}: {found.cause}; looking again")
                before = found
            elif found.state == "well":
                self._on_flight(True)
                before = None

    def _round(self, before: NimctlError | None) -> NimctlError | Verdict:
        """Send one canary and wait for it, however long that is, while the engine moves."""
        again = before is not None and before.id == "engine-hangs"
        patience = self._timeout * (_SECOND_PATIENCE if again else 1.0)
        abort, answers = Abort(), list[Answer]()
        over = threading.Event()
        self._abort = abort
        if self._stopped.is_set():  # it may have been called between the two
            return _UNKNOWN

        def wait() -> None:
            try:
                with suppress(UnreachableError):  # whoever died is seen by the supervisor
                    answers.append(self._ask(abort))
            finally:
                over.set()

        threading.Thread(target=wait, name="canary-request", daemon=True).start()
        share = patience * _LOOK_SHARE
        still = Stillness(patience)
        still.see(self._clock(), None, self._work() if self._work else None)
        while not over.wait(min(_PAUSE, share)):
            counters = self._counters(min(_METRICS_SECONDS, share))
            if still.see(self._clock(), counters, self._work() if self._work else None) and not over.is_set():
                abort()
                return hangs(patience, "a second small request" if again else "a small request")
            if self._stopped.is_set():
                return _UNKNOWN
        verdict = judge(self._baseline, answers[0]) if answers else _UNKNOWN
        return garbage(verdict.why) if verdict.state == "sick" else verdict


def hangs(seconds: float, what: str) -> NimctlError:
    """The error of an engine that stands still with work to do."""
    return NimctlError(
        "engine-hangs",
        "the engine hangs",
        cause=f"{what} got no answer and none of its counters moved for {seconds:g} s",
        fix="Look for GPU and link errors (`nimctl doctor`, Xid in dmesg); NIM_CANARY_TIMEOUT sets the patience.",
    )


def through(front: Front, baseline: Baseline) -> Ask:
    """Asks through the public port, as a client does."""

    def ask(abort: Abort) -> Answer:
        path, document = baseline.probe.path, baseline.probe.document
        return post_tcp(
            front.client_host,
            front.port,
            path,
            document,
            headers={HEADER: front.token},
            timeout=_LONGEST_ANSWER,
            abort=abort,
        )

    return ask


def counters_at(engine_socket: Path) -> Look:
    """The engine's counters as text: equal texts, no step in between. Empty where it has none (--disable-log-stats)."""

    def look(timeout: float) -> str | None:
        try:
            answer = get_unix(engine_socket, "/metrics", timeout=timeout)
        except UnreachableError:
            return None
        return b"\n".join(_COUNTERS.findall(answer.body)).decode(errors="replace") if answer.status == 200 else ""

    return look

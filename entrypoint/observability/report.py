"""The one report of the start: kept in memory, written as files that nginx serves while Python is busy or dead."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import RLock
from typing import Any

from entrypoint.state import State, write_atomically
from nimctl.core.errors import NimctlError
from nimctl.core.stages import NAMES, Figure, Stage, StartupReport, Step

# Byte progress comes thousands of times a second; people and clients look a few times a second.
_LEAST_INTERVAL = 0.2

# What a stage that is over no longer has.
_AT_REST: dict[str, Any] = {"eta": None, "rate": None, "connections": None, "phase": None, "files": ()}

_MOST_STEPS = 30

_COMING_UP = ("starting", "restarting")

# Every start of an engine begins here, the first one behind the front as well as those that follow a loss.
_FIRST_OF_A_START = NAMES[NAMES.index("front") + 1]

_SENTENCES = {
    "starting": "Service is starting",
    "ready": "Service is not ready",  # only ever read once `ready` has been withdrawn, before the reason is known
    "restarting": "Service is restarting its engine",
    "stopping": "Service is stopping",
    "failed": "Service has failed",
}


class Report:
    """Which stage runs, how far it is, and whether the service is ready. Every method may be called from any thread."""

    def __init__(
        self,
        state: State,
        version: str,
        *,
        clean: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._clean = clean  # makes an error's document fit for the open route
        self._clock = clock
        self._lock = RLock()
        self._written = float("-inf")
        self._began = clock()
        self._stage_began: dict[str, float] = {}
        self._lost = False  # what the running start started is gone: it may no longer say that it is ready
        self._in_steps: set[str] = set()  # stages whose last step runs until the next, or until the stage ends
        self._tell: Callable[[Stage], None] = lambda stage: None
        self._downloaded = 0
        self._report = StartupReport("starting", tuple(Stage(name) for name in NAMES), version)
        self._write(full=True)

    @property
    def current(self) -> StartupReport:
        """The report at this moment."""
        return self._report

    @property
    def elapsed(self) -> float:
        """Seconds since the start began."""
        return self._clock() - self._began

    @property
    def downloaded(self) -> int:
        """Bytes of weights that were fetched."""
        return self._downloaded

    def listen(self, tell: Callable[[Stage], None]) -> None:
        """Have `tell` called with each stage as it begins and ends; at once with those that have ended."""
        self._tell = tell
        for stage in self._report.stages:
            if stage.state == "done":
                tell(stage)

    @contextmanager
    def stage(self, name: str, *, began: float | None = None) -> Iterator[None]:
        """The time of one stage; an error that leaves the block fails the stage, and is passed on."""
        with self._lock:
            if name == _FIRST_OF_A_START:
                self._lost = False
            self._stage_began[name] = self._clock() if began is None else began
            self._in_steps.discard(name)
            self._update(name, state="running", steps=())
            self._write(full=True)
        self._tell(self._find(name))
        try:
            yield
        except BaseException as error:
            with self._lock:
                # what nobody translated is told by `failed`, before or after: a bug, or only the echo of a death
                error_id = error.id if isinstance(error, NimctlError) else self._find(name).error_id
                self._update(name, state="failed", error_id=error_id)
                self._write(full=True)
            self._tell(self._find(name))
            raise
        with self._lock:
            self._update(name, state="done", **_AT_REST)
            self._write(full=True)
        self._tell(self._find(name))

    def describe(
        self, *, model: str | None = None, layout: str | None = None, figures: tuple[Figure, ...] = ()
    ) -> None:
        """Say what is being served, and how near the plan was, once that is known."""
        with self._lock:
            current = self._report
            self._report = replace(
                current,
                model=model or current.model,
                layout=layout or current.layout,
                figures=figures or current.figures,
            )
            self._write(full=True)

    def step(self, stage: str, name: str) -> None:
        """A part of the running stage begins; the one before it ends with that."""
        with self._lock:
            if self._find(stage).state == "running":
                self._begin_step(stage, name)
                self._write(full=False)

    def took(self, stage: str, name: str, seconds: float) -> None:
        """A part of the running stage, beside which others may run, ended just now and took so long."""
        with self._lock:
            found = self._find(stage)
            if found.state == "running":
                ended = self._clock() - self._stage_began[stage]
                part = Step(name, round(max(0.0, ended - seconds), 3), round(seconds, 3))
                steps = sorted((*found.steps, part), key=lambda one: one.began)
                self._update(stage, steps=tuple(steps))

    def _begin_step(self, stage: str, name: str) -> None:
        if len(self._find(stage).steps) >= _MOST_STEPS:
            return
        self._update(stage)  # the step before it ends now
        began = round(self._clock() - self._stage_began[stage], 3)
        self._in_steps.add(stage)
        self._update(stage, steps=(*self._find(stage).steps, Step(name, began, 0.0)))

    def progress(self, name: str, **changes: Any) -> None:
        """How far the running stage is: any of the fields of `Stage`; written at most every 0.2 s."""
        with self._lock:
            found = self._find(name)
            if found.state != "running":
                return
            if (phase := changes.get("phase")) is not None and phase not in (found.phase, "done"):
                self._begin_step(name, phase)
            if changes.get("phase") == "fetching" and found.phase == "fetching":
                self._downloaded += max(0, (changes.get("bytes") or 0) - (found.bytes or 0))
            self._update(name, **changes)
            if self._clock() - self._written >= _LEAST_INTERVAL:
                self._write(full=False)

    def touch(self) -> None:
        """Bring the running stage's seconds up to date."""
        with self._lock:
            if self._report.state in _COMING_UP:
                self._write(full=False)

    def ready(self) -> None:
        """From here on the front lets requests through and says that the service is ready."""
        with self._lock:
            if self._report.state not in _COMING_UP or self._lost:
                return
            self._report = replace(self._report, state="ready")
            self._write(full=False)
            write_atomically(self._state.ready, "")
            self._write(full=True)

    def stopping(self) -> None:
        """From here on the front refuses new requests; those that run go on."""
        with self._lock:
            self._report = replace(self._report, state="stopping")
            self._write(full=True)  # first: whoever is refused is told why
            self._state.ready.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Say at once that we are not ready, whatever the running start says from here on; why comes next."""
        with self._lock:
            self._lost = True
            self._state.ready.unlink(missing_ok=True)

    def restarting(self, error: dict[str, Any]) -> None:
        """The engine is started again because of this error (its `to_json` form); the front stays."""
        error = self._clean(error)
        with self._lock:
            self._state.ready.unlink(missing_ok=True)
            kept = NAMES.index("front")
            stages = tuple(s if n <= kept else Stage(s.name) for n, s in enumerate(self._report.stages))
            restarts = self._report.restarts + 1
            self._report = replace(self._report, state="restarting", stages=stages, restarts=restarts, last_error=error)
            for name in NAMES[kept + 1 :]:
                self._stage_began.pop(name, None)
            self._write(full=True)

    def failed(self, error: dict[str, Any]) -> None:
        """The start or the service ended with this error (its `to_json` form)."""
        error = self._clean(error)
        with self._lock:
            self._state.ready.unlink(missing_ok=True)
            current = self._report.current
            if current is not None and current.error_id is None:
                self._update(current.name, state="failed", error_id=str(error["id"]))
            self._report = replace(self._report, state="failed", error=error)
            self._write(full=True)

    def _find(self, name: str) -> Stage:
        return next(s for s in self._report.stages if s.name == name)

    def _update(self, name: str, **changes: Any) -> None:
        if name in self._stage_began:
            changes["seconds"] = round(self._clock() - self._stage_began[name], 3)
            steps = changes.get("steps", self._find(name).steps)
            if steps and name in self._in_steps:
                last = replace(steps[-1], seconds=round(max(0.0, changes["seconds"] - steps[-1].began), 3))
                changes["steps"] = (*steps[:-1], last)
        stages = tuple(replace(s, **changes) if s.name == name else s for s in self._report.stages)
        self._report = replace(self._report, stages=stages)

    def _write(self, *, full: bool) -> None:
        """Replace the documents. A full state folder makes them stale; it must not end a service."""
        with suppress(OSError):
            self._replace(full=full)

    def _replace(self, *, full: bool) -> None:
        for stage in self._report.stages:
            if stage.state == "running":
                self._update(stage.name)
        self._written = self._clock()
        public = self._state.public
        write_atomically(public / "startup.json", json.dumps(self._report.to_json()))
        if full:
            write_atomically(public / "unready.json", json.dumps(self._unready()))
            write_atomically(public / "refusal.json", json.dumps(self._refusal()))

    def _sentence(self) -> str:
        current = self._report.current
        where = f": stage {current.name}" if current else ""
        last = self._report.last_error
        why = f" ({last['id']})" if self._report.state == "restarting" and last else ""
        return _SENTENCES[self._report.state] + why + where

    def _unready(self) -> dict[str, Any]:
        current = self._report.current
        return {
            "object": "health.response",
            "message": self._sentence(),
            "status": "unavailable",
            "stage": current.name if current else None,
        }

    def _refusal(self) -> dict[str, Any]:
        message = f"{self._sentence()}. See /v1/health/startup, then try again."
        return {"error": {"message": message, "type": "ServiceUnavailableError", "param": None, "code": 503}}

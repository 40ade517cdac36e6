"""The stages of a start, as data: written by the container, served at `/v1/health/startup`, drawn by `nimctl run`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.startup/1"
PROGRESS_SCHEMA = "nimctl.progress/1"  # of the lines that a download writes

# In the order in which they run; the words users see.
NAMES = ("settings", "front", "cache", "gpus", "profile", "weights", "engine", "warmup")

# Seconds that running requests get after SIGTERM, unless NIM_DRAIN_SECONDS says otherwise.
DRAIN_SECONDS = 30

StageState = Literal["pending", "running", "done", "failed"]
ServiceState = Literal["starting", "ready", "restarting", "stopping", "failed"]


# Files that a stage names at most; a client that reads 1 MiB of the report still reads all of it.
MOST_FILES = 1000


@dataclass(frozen=True)
class StageFile:
    """One file that a stage works on: `bytes` of `size` are there; `waiting`, `fetching`, `verifying` or `done`."""

    path: str
    bytes: int
    size: int
    state: str


@dataclass(frozen=True)
class Step:
    """A part of a stage: it began so many seconds after the stage, and took `seconds`. Some run beside each other."""

    name: str
    began: float
    seconds: float


@dataclass(frozen=True)
class Stage:
    """One named stage. `seconds` runs while the stage runs; bytes are of this stage's own work (weights, loading).

    `rate` is in bytes a second, `eta` in seconds. `retries` counts requests that were repeated. `phase` is what the
    stage is at: `resolving`, `waiting` (for another process), `fetching`, `verifying`, `done`. `files` are those it
    works on while it runs, at most MOST_FILES, what moves first. `steps` are its parts, in the order of their
    beginnings; the last one's `seconds` run while the stage runs.
    """

    name: str
    state: StageState = "pending"
    seconds: float | None = None
    bytes: int | None = None
    total: int | None = None
    eta: float | None = None
    detail: str | None = None
    error_id: str | None = None
    rate: float | None = None
    retries: int | None = None
    connections: int | None = None
    phase: str | None = None
    files: tuple[StageFile, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One figure that was planned, and what the engine said of it: bytes, tokens or ranks, by `name`.

    `error` is the difference as a share of what was found, `right` whether that is as near as plans are.
    """

    name: str
    planned: int
    found: int
    error: float
    right: bool


@dataclass(frozen=True)
class StartupReport:
    """The whole start at one moment. `error` is the `to_json` form of the error that ended it, once there is one.

    `restarts` counts those of the engine alone, `last_error` is what led to the last one; the stages are of the newest
    start. `figures` holds the plan against the engine, once it serves.
    """

    state: ServiceState
    stages: tuple[Stage, ...]
    version: str
    model: str | None = None
    layout: str | None = None
    error: dict[str, Any] | None = None
    figures: tuple[Figure, ...] = ()
    restarts: int = 0
    last_error: dict[str, Any] | None = None
    schema: str = SCHEMA

    @property
    def current(self) -> Stage | None:
        """The stage that runs, or that failed; None before the first and after the last."""
        return next((s for s in self.stages if s.state in ("running", "failed")), None)

    def to_json(self) -> dict[str, Any]:
        """The document that `/v1/health/startup` answers."""
        return {**to_plain(self), "stage": self.current.name if self.current else None}


def report_from_json(data: Any) -> StartupReport:
    """The report in a `/v1/health/startup` body. Raises ValueError when it is not one.

    Members that are not known here are left out: a container may be newer than the host that looks at it.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a {SCHEMA} document")
    stages = data.get("stages")
    if isinstance(stages, list):
        data = {**data, "stages": [_known_stage(stage) for stage in stages]}
    figures = data.get("figures")
    if isinstance(figures, list):
        data = {**data, "figures": [_known(figure, Figure) for figure in figures]}
    return from_plain(StartupReport, _known(data, StartupReport))


def _known_stage(data: Any) -> Any:
    stage = _known(data, Stage)
    if not isinstance(stage, Mapping):
        return stage
    parts: tuple[tuple[str, type[Any]], ...] = (("files", StageFile), ("steps", Step))
    told = {
        name: [_known(one, kind) for one in stage[name]] for name, kind in parts if isinstance(stage.get(name), list)
    }
    return {**stage, **told}


def _known(data: Any, kind: type[Any]) -> Any:
    if not isinstance(data, Mapping):
        return data
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}

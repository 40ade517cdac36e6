"""The stages of a start, as data: written by the container, served at `/v1/health/startup`, drawn by `nimctl run`."""

from dataclasses import dataclass
from typing import Any, Literal

from nimctl.core.plain import from_plain, to_plain

SCHEMA = "nimctl.startup/1"

# In the order in which they run; the words users see.
NAMES = ("settings", "front", "cache", "gpus", "profile", "weights", "engine", "warmup")

# Seconds that running requests get after SIGTERM, unless NIM_DRAIN_SECONDS says otherwise.
DRAIN_SECONDS = 30

StageState = Literal["pending", "running", "done", "failed"]
ServiceState = Literal["starting", "ready", "stopping", "failed"]


@dataclass(frozen=True)
class Stage:
    """One named step. `seconds` runs while the stage runs; bytes are of this stage's own work (weights, loading)."""

    name: str
    state: StageState = "pending"
    seconds: float | None = None
    bytes: int | None = None
    total: int | None = None
    eta: float | None = None
    detail: str | None = None
    error_id: str | None = None


@dataclass(frozen=True)
class StartupReport:
    """The whole start at one moment. `error` is the `to_json` form of the error that ended it, once there is one."""

    state: ServiceState
    stages: tuple[Stage, ...]
    version: str
    model: str | None = None
    layout: str | None = None
    error: dict[str, Any] | None = None
    schema: str = SCHEMA

    @property
    def current(self) -> Stage | None:
        """The stage that runs, or that failed; None before the first and after the last."""
        return next((s for s in self.stages if s.state in ("running", "failed")), None)

    def to_json(self) -> dict[str, Any]:
        """The document that `/v1/health/startup` answers."""
        return {**to_plain(self), "stage": self.current.name if self.current else None}


def report_from_json(data: Any) -> StartupReport:
    """The report in a `/v1/health/startup` body. Raises ValueError when it is not one."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a {SCHEMA} document")
    return from_plain(StartupReport, {k: v for k, v in data.items() if k != "stage"})

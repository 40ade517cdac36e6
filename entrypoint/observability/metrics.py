"""The server's own metrics, beside the engine's: text format 0.0.4 of Prometheus, in a file that nginx serves.

https://prometheus.io/docs/instrumenting/exposition_formats/ . All names begin with `nimctl_`, so that none can meet one
of the engine's (`vllm:`). Written when something changed, by the one who looks once a second.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from entrypoint.state import write_atomically
from nimctl.core.stages import StartupReport, Step

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """One metric: its name without prefix, what it is, and a value for each set of labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def exposition(families: Iterable[Family]) -> str:
    """The text of these metrics; one without a value is left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = f"nimctl_{family.name}"
        lines += [f"# HELP {name} {_escaped(family.help)}", f"# TYPE {name} {family.kind}"]
        for labels, value in family.samples:
            told = ",".join(f'{key}="{_escaped(text, quotes=True)}"' for key, text in labels)
            lines.append(f"{name}{{{told}}} {_number(value)}" if told else f"{name} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True)
class Counts:
    """What only grows: bytes fetched, canaries by result, requests by route and code; and when it was ready first."""

    downloaded: int = 0
    canaries: Mapping[str, int] | None = None
    requests: Mapping[tuple[str, str], int] | None = None
    ready_after: float | None = None


def families(report: StartupReport, counts: Counts, build: Mapping[str, str]) -> tuple[Family, ...]:
    """Every metric of a server whose report and counts are these; `build` are the labels of its build."""
    stages = [stage for stage in report.stages if stage.seconds is not None]
    steps = [(stage.name, step) for stage in stages for step in stage.steps]
    tokens = [((), float(figure.found)) for figure in report.figures if figure.name == "cache tokens"]
    ready = () if counts.ready_after is None else (((), counts.ready_after),)
    return (
        Family("build_info", "gauge", "What is running; always 1.", ((tuple(build.items()), 1.0),)),
        Family("ready", "gauge", "1 while the service is ready.", (((), float(report.state == "ready")),)),
        Family("start_seconds", "gauge", "Seconds from the start of the container to its first ready.", ready),
        Family(
            "stage_seconds",
            "gauge",
            "Seconds of each stage of the newest start.",
            tuple(((("stage", stage.name),), stage.seconds or 0.0) for stage in stages),
        ),
        Family(
            "stage_step_seconds",
            "gauge",
            "Seconds of the parts of stages.",
            tuple(((("stage", stage), ("step", name)), seconds) for (stage, name), seconds in _sums(steps).items()),
        ),
        Family("downloaded_bytes_total", "counter", "Bytes of weights fetched.", (((), float(counts.downloaded)),)),
        Family("cache_tokens", "gauge", "Tokens that the engine's cache holds.", tuple(tokens)),
        Family("engine_restarts_total", "counter", "Restarts of the engine.", (((), float(report.restarts)),)),
        Family(
            "canary_total",
            "counter",
            "Canary requests by result.",
            tuple(((("result", name),), float(n)) for name, n in sorted((counts.canaries or {}).items())),
        ),
        Family(
            "requests_total",
            "counter",
            "Requests answered, by route and status code.",
            tuple(
                ((("route", route), ("code", code)), float(n))
                for (route, code), n in sorted((counts.requests or {}).items())
            ),
        ),
    )


def _sums(steps: Iterable[tuple[str, Step]]) -> dict[tuple[str, str], float]:
    """Seconds by stage and step; a step that came twice counts together, since labels must be unique."""
    found: dict[tuple[str, str], float] = {}
    for stage, step in steps:
        found[stage, step.name] = found.get((stage, step.name), 0.0) + step.seconds
    return found


class Metrics:
    """Gathers the counts, and keeps the file up to date. Every method may be called from any thread."""

    def __init__(self, path: Path, build: Mapping[str, str]) -> None:
        self._path = path
        self._build = {name: value for name, value in build.items() if value}
        self._lock = threading.Lock()
        self._canaries: Counter[str] = Counter({"ok": 0, "failed": 0})
        self._ready_after: float | None = None
        self._written: str | None = None

    def canary(self, result: Literal["ok", "failed"]) -> None:
        """A canary came back, or did not."""
        with self._lock:
            self._canaries[result] += 1

    def first_ready(self, seconds: float) -> None:
        """The service became ready so many seconds after its start; only the first time counts."""
        with self._lock:
            self._ready_after = seconds if self._ready_after is None else self._ready_after

    def write(
        self, report: StartupReport, *, downloaded: int = 0, requests: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        """Replace the file where something changed. A full state folder makes it stale; it must not end a service."""
        with self._lock:
            counts = Counts(downloaded, dict(self._canaries), requests, self._ready_after)
            text = exposition(families(report, counts, self._build))
            if text == self._written:
                return
            with suppress(OSError):
                write_atomically(self._path, text)
                self._written = text

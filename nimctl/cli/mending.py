"""`nimctl doctor --fix`: the plan with its risks, the question, the change, and a second look."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from nimctl.cli.diagnosis import Diagnosis
from nimctl.core.errors import NimctlError
from nimctl.doctor.fixes import RISKS, Remedy, left_to_you, plan_remedies
from nimctl.doctor.fixes.act import Outcome, Tools, apply
from nimctl.render import Output


@dataclass(frozen=True)
class Mended:
    """The report that counts now, and what became of each remedy."""

    diagnosis: Diagnosis
    outcomes: tuple[Outcome, ...]

    @property
    def error(self) -> NimctlError | None:
        """The first failure."""
        return next((o.error for o in self.outcomes if o.error is not None), None)

    def to_json(self) -> dict[str, Any]:
        """What `--fix` adds to the document of the doctor."""
        return {"remedies": [outcome.to_json() for outcome in self.outcomes]}


def mend(found: Diagnosis, again: Callable[[], Diagnosis], out: Output, *, yes: bool, replayed: bool) -> Mended:
    """Show what can be mended, and after a yes do it and look again.

    Without a terminal and without `yes`, and for facts of another time or machine (`replayed`), nothing is changed.
    """
    remedies = plan_remedies(found.report.findings, found.facts, found.needs, docker_config=_docker_config())
    show_plan(found, remedies, out)
    ready = [remedy for remedy in remedies if not remedy.refused]
    if not ready or replayed or not (yes or _confirmed(len(ready), out)):
        if replayed and ready:
            out.text("nothing was changed: these are saved facts")
        elif ready:
            out.text("nothing was changed; --yes applies it")
        return Mended(found, tuple(map(Outcome, remedies)))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    outcomes = apply(remedies, Tools(stamp), lambda line: out.text(f"$ {line}", style="bold"))
    for outcome in outcomes:
        if outcome.applied:
            out.text(f"applied: {outcome.remedy.id}", style="green")
    return Mended(again(), outcomes)


def show_plan(found: Diagnosis, remedies: tuple[Remedy, ...], out: Output) -> None:
    """What can be done, what it costs, and what is left to a person."""
    if not remedies:
        out.text("nimctl can mend nothing here by itself", style="bold")
    for number, remedy in enumerate(remedies, 1):
        out.text(f"{number}. {remedy.id}: {remedy.changes}", style="bold")
        out.text(f"   mends {', '.join(remedy.mends)}; risk: {RISKS[remedy.risk]}")
        for path in remedy.backs_up:
            out.text(f"   keeps a copy of {path}")
        for line in remedy.lines:
            out.text(f"   $ {line}")
        if remedy.refused:
            out.text(f"   not applied now: {remedy.refused}", style="yellow")
    left = left_to_you(found.report.findings, remedies)
    if left:
        out.text("left to you:", style="bold")
    for finding in left:
        out.text(f"   [{finding.id}] {finding.fix}")
    out.text("")


def _confirmed(count: int, out: Output) -> bool:
    """Ask on a terminal; without one the answer is no."""
    if out.mode != "human" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm(f"Apply {count} of them?", default=False)


def _docker_config() -> str:
    """The configuration of this user's docker command, where there is one."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return str(folder / "config.json")

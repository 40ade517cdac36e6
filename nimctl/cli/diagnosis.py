"""A judgement of this host on behalf of a verb: looked, judged, shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nimctl.cli import host
from nimctl.cli.config import Config
from nimctl.cli.target import Target
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.doctor import runner
from nimctl.doctor.markdown import to_markdown
from nimctl.doctor.model import Finding, Needs
from nimctl.doctor.runner import Report
from nimctl.doctor.summary import describe_host
from nimctl.render import Output

_WORDS = {
    word: f"{word} " for word in ("driver", "Docker", "toolkit", "memory")
}  # values that do not explain themselves


@dataclass(frozen=True)
class Diagnosis:
    """What was judged, and what it was made from."""

    target: Target
    config: Config
    facts: HostFacts
    needs: Needs
    report: Report

    def plus(self, *findings: Finding) -> Diagnosis:
        """The same with further findings, such as a probe's."""
        return replace(self, report=self.report.plus(*findings))


def diagnose(
    target: Target,
    config: Config,
    out: Output,
    *,
    replay: Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    strict: bool = False,
) -> Diagnosis:
    """Look at this host (or read the facts in `replay`) and judge it. Raises `usage` when no check is left to run."""
    facts = host.look(config, out, target, replay=replay)
    needs = host.needs_for(target, config, host.wanted_gpus(config, target.recipe, facts), facts)
    report = runner.run_checks(facts, needs, only=only, skip=skip)
    if not report.findings:
        raise NimctlError(
            "usage", "no check was run", cause="--only and --skip leave none", fix="See `nimctl doctor --list-checks`."
        )
    return Diagnosis(target, config, facts, needs, replace(report, strict=strict))


def show(
    diagnosis: Diagnosis,
    out: Output,
    *,
    verbose: bool,
    markdown: bool = False,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """The report in the form that was asked for; `more` goes into the JSON document."""
    report, model = diagnosis.report, diagnosis.target.recipe.name
    out.document({**report.to_json(), "model": model, **more})
    if markdown:
        out.result(to_markdown(report, model).rstrip())
    elif out.mode != "json":
        _show_people(report, out, verbose=verbose)


def _show_people(report: Report, out: Output, *, verbose: bool) -> None:
    """What is not well first, each with its fix; then what passed, a line a group."""
    if out.mode == "human":
        out.text(" · ".join(_WORDS.get(word, "") + value for word, value in describe_host(report.facts)), style="dim")
    out.findings(report.in_order("fail"))
    if out.mode == "human":
        untold = report.in_order("unknown")
        out.findings([*report.in_order("warn"), *(f for f in untold if f.fix or verbose)])
        if verbose:
            out.findings(report.in_order("pass", "skip"))
        else:
            out.groups("unknown", _by_group([f for f in untold if not f.fix]))
            out.groups("pass", _by_group(report.in_order("pass")))
    out.text(report.closing)


def _by_group(findings: Sequence[Finding]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for finding in findings:
        names = groups.setdefault(finding.group, [])
        if finding.check not in names:
            names.append(finding.check)
    return groups

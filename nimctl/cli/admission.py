"""Whether a start goes on after the checks: by what the host is, and by what an image asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from nimctl.core.facts import HostFacts, ImageFacts
from nimctl.doctor import runner
from nimctl.doctor.model import Needs
from nimctl.render import Output


def by_labels(facts: HostFacts, needs: Needs, out: Output, *, force: bool) -> Callable[[Mapping[str, str]], None]:
    """Judges the labels of an image that is not here yet, before 25 GB of it are fetched. It raises as `settle`."""

    def admit(labels: Mapping[str, str]) -> None:
        image = ImageFacts("the image in its registry", present=True).described(labels)
        settle(runner.run_checks(replace(facts, image=image), needs, only=("image-needs",)), out, force=force)

    return admit


def settle(report: runner.Report, out: Output, *, force: bool) -> None:
    """Tell the warnings, and raise the one error of the failures; `force` says them and goes on."""
    for finding in report.findings:
        if finding.verdict == "warn":
            out.text(f"[{finding.id}] {finding.title}: {finding.cause}", style="yellow")
    problem = runner.errors(report)
    if problem is None:
        return
    if not force:
        if problem.id == "preflight-failed":  # several; a single one is the error itself
            out.findings(report.failures)
        raise problem
    for finding in report.failures:
        out.text(f"forced past [{finding.id}] {finding.title}", style="yellow")

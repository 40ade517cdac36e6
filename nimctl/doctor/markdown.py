"""A report as Markdown, to be pasted into a bug report. Pure.

What hosts and programs said goes into code spans and code blocks whose fences are longer than any run of backticks in
it, so that nothing in it can become markup. It holds what the JSON report holds of the findings; the facts themselves
go beside it as the file of `--save-facts`.
"""

import re
from collections.abc import Iterator

from nimctl.core.printable import printable
from nimctl.core.secret import redact
from nimctl.doctor.model import Finding, Verdict
from nimctl.doctor.runner import Report
from nimctl.doctor.summary import describe_host

_TITLES: tuple[tuple[Verdict, str], ...] = (
    ("fail", "Failed"),
    ("warn", "To look at"),
    ("unknown", "Could not be told"),
)


def to_markdown(report: Report, model: str) -> str:
    """The report on this host for `model`: the host, what is not well with its cause and fix, then what passed."""
    lines = [f"## nimctl doctor {_code(model)}", "", report.verdict, ""]
    lines += [f"- nimctl: {_code(report.facts.nimctl)}, looked at {_code(report.facts.taken_at)}"]
    lines += [f"- {word}: {_code(value)}" for word, value in describe_host(report.facts)]
    for verdict, title in _TITLES:
        if found := report.in_order(verdict):
            lines += ["", f"### {title}", ""]
            for finding in found:
                lines += _finding(finding)
    if report.facts.problems:
        lines += ["", "### Looks that failed", "", *(f"- {_code(problem)}" for problem in report.facts.problems)]
    if passed := report.in_order("pass"):
        lines += ["", "<details><summary>Passed</summary>", ""]
        lines += [f"- {_code(f.check)}: {_code(f.title)}" for f in passed]
        lines += ["", "</details>"]
    return redact("\n".join(lines) + "\n")


def _finding(finding: Finding) -> Iterator[str]:
    yield f"- **{finding.id}** ({finding.group}/{finding.check}): {_code(finding.title)}"
    if finding.cause:
        yield f"  - cause: {_code(finding.cause)}"
    if finding.fix:
        yield f"  - fix: {_code(finding.fix)}"
    if finding.evidence:
        fence = "`" * max(3, _longest_run("\n".join(finding.evidence)) + 1)
        yield "\n".join(
            ("", f"  {fence}text", *(f"  {_one_line(line)}" for line in finding.evidence), f"  {fence}", "")
        )


def _code(text: str) -> str:
    """`text` as a code span that nothing in it can end."""
    flat = _one_line(text)
    fence = "`" * (_longest_run(flat) + 1)
    space = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{space}{flat}{space}{fence}" if flat else ""


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)

"""Run all checks, never stop at the first, and sum up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nimctl.core.errors import CATALOGUE, NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.facts import to_json as facts_to_json
from nimctl.core.plain import to_plain
from nimctl.doctor import checks
from nimctl.doctor.model import VERDICTS, Check, Finding, Needs, Verdict

SCHEMA = "nimctl.doctor/1"


@dataclass(frozen=True)
class Report:
    """What the doctor says about a host, and the facts that it judged. If `strict`, warnings fail too; notes never."""

    findings: tuple[Finding, ...]
    facts: HostFacts
    strict: bool = False

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """How many findings there are of each verdict, zeros included."""
        found = Counter(f.verdict for f in self.findings)
        return {verdict: found[verdict] for verdict in reversed(VERDICTS)}

    @property
    def worst(self) -> Verdict:
        """The worst verdict; "skip" when nothing was checked."""
        return max((f.verdict for f in self.findings), key=VERDICTS.index, default="skip")

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that would stop a run."""
        return tuple(f for f in self.findings if f.verdict == "fail")

    @property
    def exit_code(self) -> int:
        """0 for a host that is ready, else 3: why it is not, the ids say."""
        return 0 if self.is_ready else CATALOGUE["preflight-failed"].exit_code

    @property
    def is_ready(self) -> bool:
        """Nothing failed; if `strict`, nothing was warned of either."""
        return not self.failures and not (self.strict and (self.warnings or self.doubts))

    @property
    def doubts(self) -> tuple[Finding, ...]:
        """What could not be told and should have been: a check that crashed, a driver that was late."""
        return tuple(f for f in self.findings if f.verdict == "unknown" and f.severity != "info")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What works and should be looked at. Notes, of severity info, are none."""
        return tuple(f for f in self.findings if f.verdict == "warn" and f.severity != "info")

    @property
    def verdict(self) -> str:
        """Whether this host is ready, in one sentence with the counts and no word of the host's own."""
        if not self.findings:
            return "Nothing was checked."
        counts = self.counts
        words = [f"{counts['pass']} passed", *(f"{counts[v]} {word}" for v, word in _WORDS if counts[v])]
        doubt = ", as far as could be told" if self.doubts else ""
        return f"This host is {f'ready{doubt}' if self.is_ready else 'not ready'}: {', '.join(words)}."

    @property
    def closing(self) -> str:
        """The verdict, and what to do first."""
        return (
            self.verdict
            if self.is_ready
            else f"{self.verdict} Start with: {(*self.failures, *self.warnings, *self.doubts)[0].fix}"
        )

    def in_order(self, *verdicts: Verdict) -> tuple[Finding, ...]:
        """The findings of these verdicts: the verdicts in the order given, within each the order of the checks."""
        return tuple(f for verdict in verdicts for f in self.findings if f.verdict == verdict)

    def plus(self, *findings: Finding) -> "Report":
        """The report with further findings, such as a probe's."""
        return replace(self, findings=(*self.findings, *findings))

    def to_json(self) -> dict[str, Any]:
        """The document of `nimctl doctor --json`; its schema is `docs/schemas/doctor.json`."""
        return {
            "schema": SCHEMA,
            "ok": self.is_ready,
            "counts": dict(self.counts),
            "findings": [{**to_plain(f), "docs": f.docs} for f in self.findings],
            "facts": facts_to_json(self.facts),
        }


_WORDS: tuple[tuple[Verdict, str], ...] = (
    ("fail", "failed"),
    ("warn", "to look at"),
    ("unknown", "could not be told"),
    ("skip", "do not apply"),
)


def run_checks(
    facts: HostFacts,
    needs: Needs,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    among: Sequence[Check] = checks.ALL,
) -> Report:
    """Judge `facts` for `needs`. `only` and `skip` name checks or groups; raises `usage` for a name of neither."""
    known = {c.id for c in among} | {c.group for c in among}
    if wrong := [name for name in (*only, *skip) if name not in known]:
        raise NimctlError(
            "usage",
            f"there is no check or group {wrong[0]!r}",
            cause=f"groups: {', '.join(dict.fromkeys(c.group for c in among))}",
            fix="See `nimctl doctor --list-checks`.",
        )
    chosen = [c for c in among if (not only or {c.id, c.group} & set(only)) and not {c.id, c.group} & set(skip)]
    return Report(tuple(finding for check in chosen for finding in _judge(check, facts, needs)), facts)


def _judge(check: Check, facts: HostFacts, needs: Needs) -> list[Finding]:
    try:
        found = check.judge(facts, needs)
    except Exception as error:  # a check that crashes must not hide what the others found
        cause = f"{type(error).__name__}: {error}"
        fix = "This is a bug: report it with the file of `nimctl doctor --save-facts`."
        found = [Finding(check.id, "check-crashed", "unknown", "warning", f"{check.title}: not told", cause, fix)]
    return [replace(finding, group=check.group) for finding in found]


def errors(report: Report) -> NimctlError | None:
    """The failures as the one error that `run` ends with: the failure's own id when it is alone; None without any."""
    failures = report.failures
    if not failures:
        return None
    if len(failures) == 1:
        only = failures[0]
        return NimctlError(only.id, only.title, cause=only.cause, fix=only.fix, evidence=only.evidence)
    return NimctlError(
        "preflight-failed",
        f"{len(failures)} checks failed: {', '.join(dict.fromkeys(f.id for f in failures))}",
        cause=failures[0].cause,
        fix=f"Begin with the first: {failures[0].fix} `nimctl doctor` lists them all.",
        evidence=[f"{f.id}: {f.title}. Fix: {f.fix}" for f in failures],
    )

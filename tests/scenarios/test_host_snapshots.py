"""Duty: of every host that people met, the doctor says what helped them; of a healthy one, however odd, nothing."""

import json
import re
import sys
from collections import Counter

import pytest

from nimctl.core import recipes
from nimctl.core.facts import HostFacts, from_json, to_json
from nimctl.doctor.markdown import to_markdown
from nimctl.doctor.model import Finding, Needs
from nimctl.doctor.runner import Report, run_checks
from tests.conftest import ROOT, Nimctl
from tests.hosts import situation
from tests.hosts.save import SAVED, file_of
from tests.hosts.situation import Situation
from tests.lib.terminal import on_terminal

SITUATIONS = {s.name: s for s in situation.load()}
# What was saved whole stays as it was written; what is expected of it is that of its situation.
SAVED_ONES = {path: met for met in SITUATIONS.values() if (path := file_of(met.name)).exists()}
EACH_SAVED = pytest.mark.parametrize("met", SAVED_ONES.values(), ids=[path.stem for path in SAVED_ONES])
WIDE = 78  # a title that is longer does not fit a line of 80 columns with its mark
EVERY = pytest.mark.parametrize("met", SITUATIONS.values(), ids=SITUATIONS.keys())


def needs(met: Situation, facts: HostFacts) -> Needs:
    """What `nimctl doctor MODEL` with these arguments judges for."""
    recipe = recipes.load(met.model)
    gpus = met.gpus or ("none" if recipe.cpu and not facts.gpus.gpus else "all")
    return Needs(recipe=recipe, runtime=met.runtime, gpus=gpus, uid=facts.system.uid)


def report(met: Situation) -> Report:
    facts = met.facts()
    return run_checks(facts, needs(met, facts))


def loud(found: Report) -> dict[str, list[str]]:
    """What is not well, by the words of a `Situation`."""
    warnings = found.in_order("warn")
    return {
        "fails": [f.id for f in found.failures],
        "warns": [f.id for f in warnings if f.severity == "warning"],
        "notes": [f.id for f in warnings if f.severity == "info"],
        "untold": [f.check for f in found.in_order("unknown")],
    }


def words(finding: Finding) -> str:
    return "\n".join((finding.title, finding.cause, finding.fix, *finding.evidence))


@EVERY
def test_the_doctor_says_what_it_must_and_nothing_else(met: Situation) -> None:
    expected = {"fails": [*met.fails], "warns": [*met.warns], "notes": [*met.notes], "untold": [*met.untold]}
    assert loud(report(met)) == expected


@EVERY
def test_it_says_what_people_needed_to_hear(met: Situation) -> None:
    said = "\n".join(words(f) for f in report(met).findings if f.verdict in ("fail", "warn", "unknown"))
    assert [word for word in met.says if word not in said] == [], said
    start = report(met).closing.partition("Start with: ")[2]
    assert [word for word in met.begin if word not in start] == [], start


@EVERY
def test_what_is_not_well_has_cause_fix_and_a_place_in_the_documents(met: Situation) -> None:
    anchors = set(re.findall(r"^## (\S+)$", (ROOT / "docs" / "checks.md").read_text(encoding="utf-8"), re.MULTILINE))
    for finding in report(met).in_order("fail", "warn"):
        assert finding.cause and finding.fix, finding
        assert finding.docs.partition("#")[2] in anchors, finding


@EVERY
def test_replayed_from_json_it_says_the_same_byte_for_byte(met: Situation) -> None:
    facts = met.facts()
    replayed = from_json(json.loads(json.dumps(to_json(facts))))
    assert replayed == facts
    first, second = (run_checks(each, needs(met, each)) for each in (facts, replayed))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert to_markdown(first, met.model) == to_markdown(second, met.model)


def test_enough_hosts_were_met_each_once_and_each_with_its_source() -> None:
    assert len(situation.load()) == len(SITUATIONS), [
        n for n, k in Counter(s.name for s in situation.load()).items() if k > 1
    ]
    well = [met for name, met in SITUATIONS.items() if name.startswith("well: ")]
    assert len(SITUATIONS) - len(well) >= 30 and len(well) >= 6
    for met in SITUATIONS.values():
        assert met.link.startswith("https://") and met.met.endswith((".", "'")), met.name
    for met in well:
        assert (met.fails, met.warns) == ((), ()), met.name


@EVERY
def test_titles_fit_a_line(met: Situation) -> None:
    assert [f.title for f in report(met).in_order("fail", "warn") if len(f.title) > WIDE] == []


def arguments(met: Situation) -> list[str]:
    gpus = ["--gpus", met.gpus] if met.gpus else []
    return ["doctor", met.model, "--facts", str(file_of(met.name)), "--runtime", met.runtime, *gpus]


def test_some_are_saved_whole_and_every_saved_one_is_of_a_situation() -> None:
    assert len(SAVED_ONES) >= 3
    assert {*SAVED.iterdir()} == {*SAVED_ONES}


@EACH_SAVED
def test_the_command_line_says_it_of_a_saved_document(
    met: Situation, nimctl: Nimctl, bare_host: dict[str, str]
) -> None:
    done = nimctl(*arguments(met), "--json", env=bare_host)
    found = done.document["findings"]
    assert [f["id"] for f in found if f["verdict"] == "fail"] == [*met.fails]
    warnings = {"warning": met.warns, "info": met.notes}
    for severity, expected in warnings.items():
        assert [f["id"] for f in found if (f["verdict"], f["severity"]) == ("warn", severity)] == [*expected]
    assert [f["check"] for f in found if f["verdict"] == "unknown"] == [*met.untold]
    assert (done.code, done.document["ok"]) == ((3, False) if met.fails else (0, True))
    assert done.document["facts"] == to_json(from_json(json.loads(file_of(met.name).read_text(encoding="utf-8"))))


@EACH_SAVED
def test_people_read_it_in_eighty_columns_failures_first(met: Situation, bare_host: dict[str, str]) -> None:
    command = [sys.executable, "-m", "nimctl", *arguments(met)]
    code, text = on_terminal(command, bare_host, columns=80)
    assert code == (3 if met.fails else 0)
    assert max(map(len, text.splitlines())) <= 80, text
    places = [text.index(f"[{found}]") for found in (*met.fails, *met.warns)]
    assert places == sorted(places)
    assert ("is not ready" if met.fails else "is ready") in text


@EACH_SAVED
def test_a_bug_report_is_markdown_with_each_failure_and_its_fix(
    met: Situation, nimctl: Nimctl, bare_host: dict[str, str]
) -> None:
    done = nimctl(*arguments(met), "--markdown", env=bare_host)
    assert done.stdout.startswith(f"## nimctl doctor `{met.model}`")
    for found in (*met.fails, *met.warns, *met.notes):
        assert f"- **{found}** (" in done.stdout
    assert ("### Failed" in done.stdout) == bool(met.fails)
    assert done.stdout.count("  - fix: ") >= len(met.fails)

"""Duty: of every host that people met, the doctor says what helped them; of a healthy one, however odd, nothing."""

import json
import re

import pytest

from nimctl.core import recipes
from nimctl.core.facts import HostFacts, from_json, to_json
from nimctl.doctor.markdown import to_markdown
from nimctl.doctor.model import Finding, Needs
from nimctl.doctor.runner import Report, run_checks
from tests.conftest import ROOT
from tests.hosts import situation
from tests.hosts.situation import Situation

SITUATIONS = {s.name: s for s in situation.load()}
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

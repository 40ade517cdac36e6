"""`nimctl doctor --fix`: what is asked, what is shown, and that nothing happens without a yes."""

import json

import jsonschema
import pytest

from nimctl.cli import mending
from nimctl.cli.config import load
from nimctl.cli.diagnosis import Diagnosis
from nimctl.cli.target import Target
from nimctl.core import facts as core_facts
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import run_checks
from nimctl.render import Output
from tests.conftest import ROOT
from tests.unit.doctor.hosts import KIMI, gpus, host, inventory

SCHEMA = json.loads((ROOT / "docs/schemas/doctor.json").read_text(encoding="utf-8"))


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def found(cache, monkeypatch, tmp_path):
    """A diagnosis of a host with one thing to mend, seen by root: its cache."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    facts = host(
        system={"uid": 0, "groups": ("root",)},
        cache={"path": str(cache), "gid": 7, "uid": 7, "mode": "0755", "group_writable": False},
    )
    needs = Needs(KIMI)
    return Diagnosis(Target(KIMI, "test"), load({}), facts, needs, run_checks(facts, needs))


def mend(found, *, yes=False, replayed=False, as_json=False):
    looked = []

    def again():
        looked.append(1)
        return found

    out = Output.choose("doctor", as_json=as_json)
    return mending.mend(found, again, out, yes=yes, replayed=replayed), looked


def test_without_a_terminal_and_without_yes_the_plan_is_shown_and_nothing_changed(found, cache, capsys):
    before = cache.stat()
    mended, looked = mend(found)
    shown = capsys.readouterr().out
    assert f"$ nimctl cache init {cache}" in shown
    assert "risk: changes group and mode of everything in the folder" in shown
    assert "nothing was changed; --yes applies it" in shown
    assert (mended.error, looked, mended.diagnosis) == (None, [], found)
    assert [o.applied for o in mended.outcomes] == [False]
    assert cache.stat() == before


def test_saved_facts_are_never_acted_on(found, cache, capsys):
    before = cache.stat()
    mended, looked = mend(found, yes=True, replayed=True)
    assert "saved facts" in capsys.readouterr().out
    assert (looked, [o.applied for o in mended.outcomes], cache.stat()) == ([], [False], before)


@pytest.mark.parametrize(("answer", "applied"), [(True, True), (False, False)])
def test_on_a_terminal_the_answer_counts(found, monkeypatch, answer, applied):
    asked = []
    calls = []
    monkeypatch.setattr(mending, "_confirmed", lambda count, out: asked.append(count) or answer)
    monkeypatch.setattr(
        mending, "apply", lambda remedies, *_: calls.append(remedies) or tuple(map(mending.Outcome, remedies))
    )
    _, looked = mend(found)
    assert (asked, bool(calls), bool(looked)) == ([1], applied, applied)


def test_yes_applies_and_looks_again(found, monkeypatch):
    monkeypatch.setattr(
        mending, "apply", lambda remedies, *_: tuple(mending.Outcome(r, applied=True) for r in remedies)
    )
    mended, looked = mend(found, yes=True)
    assert (looked, mended.error, [o.applied for o in mended.outcomes]) == ([1], None, [True])


def test_no_question_is_asked_where_nobody_can_answer(monkeypatch):
    monkeypatch.setattr(mending.typer, "confirm", lambda *_, **__: pytest.fail("asked"))
    assert not mending._confirmed(1, Output.choose("doctor"))
    assert not mending._confirmed(1, Output.choose("doctor", as_json=True))


def test_what_is_left_to_a_person_is_listed_with_its_fix(found, capsys):
    facts = host(gpus=inventory(*gpus(8), driver="550.1.2", cuda="12.4"))
    report = run_checks(facts, Needs(KIMI))
    mend(Diagnosis(found.target, found.config, facts, found.needs, report))
    shown = capsys.readouterr().out
    assert "nimctl can mend nothing here by itself" in shown
    assert "left to you:\n   [driver-too-old] Install driver 580" in shown


def test_the_document_keeps_to_its_schema(found):
    mended, _ = mend(found, as_json=True)
    document = {**mended.diagnosis.report.to_json(), "model": "kimi-k2.5", **mended.to_json()}
    document = json.loads(json.dumps(document))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert [r["id"] for r in document["remedies"]] == ["cache-init"]
    document["remedies"][0]["risk"] = "some"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_the_command_line_plans_for_saved_facts_and_keeps_its_exit_code(found, bare_host, nimctl, tmp_path):
    file = tmp_path / "facts.json"
    file.write_text(json.dumps(core_facts.to_json(found.facts)))
    arguments = ("doctor", "kimi-k2.5", "--facts", str(file), "--json")
    plain, planned = nimctl(*arguments, env=bare_host), nimctl(*arguments, "--fix", "--yes", env=bare_host)
    assert planned.code == plain.code == 3
    assert [r["id"] for r in planned.document["remedies"]] == ["cache-init"]
    assert not planned.document["remedies"][0]["applied"]
    assert {k: v for k, v in planned.document.items() if k != "remedies"} == plain.document


def test_yes_alone_has_nothing_to_agree_to(bare_host, nimctl):
    done = nimctl("doctor", "--yes", "--json", env=bare_host)
    assert (done.code, done.error_id) == (2, "usage")

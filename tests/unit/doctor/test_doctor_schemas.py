"""The JSON documents of the doctor keep to their published schemas."""

import ast
import dataclasses
import json
import typing
from pathlib import Path

import jsonschema
import pytest

from nimctl.core.facts import CredentialFacts, DockerFacts, HostFacts, to_json
from nimctl.core.gpus import Gpu
from nimctl.doctor import checks
from nimctl.doctor.model import Finding, Needs
from nimctl.doctor.runner import run_checks
from tests.unit.doctor.hosts import DEMO, HEALTHY, KIMI, NIM, host, without_gpus

ROOT = Path(__file__).parents[3]


def schema(name):
    document = json.loads((ROOT / "docs" / "schemas" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    return document


def validate(document, name):
    jsonschema.Draft202012Validator(schema(name)).validate(document)


@pytest.mark.parametrize(
    "facts",
    [HEALTHY, host(gpus=without_gpus(), docker={"state": "missing"}, image_store=None, cache={"disk": None})],
    ids=["healthy", "bare"],
)
@pytest.mark.parametrize("needs", [Needs(KIMI), Needs(NIM, gpus="99"), Needs(DEMO, "process", gpus="none"), Needs()])
def test_report_and_facts_are_valid(facts, needs):
    document = json.loads(json.dumps(run_checks(facts, needs).to_json()))
    validate(document, "doctor.json")
    validate(document["facts"], "facts.json")


def test_the_schemas_refuse_what_they_should():
    facts = to_json(HEALTHY)
    for wrong in ({"unheard-of": 1}, {"schema": "nimctl.facts/2"}, {"port": None}, {"docker": {"state": "tired"}}):
        with pytest.raises(jsonschema.ValidationError):
            validate({**facts, **wrong}, "facts.json")
    report = run_checks(HEALTHY, Needs()).to_json()
    with pytest.raises(jsonschema.ValidationError):
        validate({**report, "counts": {}}, "doctor.json")
    with pytest.raises(jsonschema.ValidationError):
        validate({**report, "findings": [{"id": "Not An Id"}]}, "doctor.json")


def test_the_schema_of_facts_names_every_field():
    document = schema("facts.json")
    assert set(document["properties"]) == set(typing.get_type_hints(HostFacts)) == set(document["required"])
    for kind in (Gpu, DockerFacts, CredentialFacts):
        assert set(document["$defs"][kind.__name__]["properties"]) == {f.name for f in dataclasses.fields(kind)}


def test_the_schema_of_findings_names_every_field():
    finding = schema("doctor.json")["$defs"]["Finding"]
    assert (
        set(finding["properties"])
        == set(finding["required"])
        == {f.name for f in dataclasses.fields(Finding)} | {"docs"}
    )


def ids_of_findings():
    """Every id that a check gives to `failed`, `warned`, or the one chosen between them."""
    for path in sorted((ROOT / "nimctl" / "doctor" / "checks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("failed", "warned", "say"):
                yield from (c.value for a in node.args[1:2] for c in ast.walk(a) if isinstance(c, ast.Constant))


def test_every_id_that_a_check_writes_is_declared_by_one():
    written = {i for i in ids_of_findings() if isinstance(i, str)}
    assert {"toolkit-missing", "cdi-stale", "port-in-use"} < written
    assert written <= {i for c in checks.ALL for i in c.says}


def test_every_check_has_its_place_in_the_documents():
    chapter = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").splitlines()
    assert [c.id for c in checks.ALL if f"## {c.id}" not in chapter] == []
    assert all(c.judge.__doc__ for c in checks.ALL)

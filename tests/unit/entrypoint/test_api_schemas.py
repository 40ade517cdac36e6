"""Schemas, expressions and grammars: what is empty or hostile is refused, what people use is not."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.api import schemas
from entrypoint.api.refusals import RefusedError
from entrypoint.api.schemas import check_constraint, check_pattern, check_schema, check_tag


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


GOOD = [
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,64}$"}}, "required": ["a"]},
    {"type": "object", "properties": {"child": {"$ref": "#"}}},  # a tree
    {"$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "$ref": "#/$defs/n"},
    {"enum": [f"word {i}" for i in range(1000)]},
    {"const": {"$ref": "http://data.example/"}},
    {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "enum": {"type": "string"}}},
    {"$defs": {"a/b~c": {"type": "string"}}, "items": {"$ref": "#/$defs/a~1b~0c"}},
    {"$defs": {"any": True}, "items": {"$ref": "#/$defs/any"}},
    {"type": "object", "x-example": {"$ref": "#/data"}},
    nested(30),
]
BAD = [
    (None, "object is expected"), ([], "object is expected"), (True, "object is expected"), ({}, "empty"),
    (nested(40), "deeper"), ({"enum": list(range(1001))}, "enumerates"),
    ({"anyOf": [{"enum": list(range(501))}, {"enum": list(range(500))}]}, "enumerates"),
    ({"properties": {f"p{i}": {} for i in range(501)}}, "501 members"),
    ({"required": ["x"] * 10_001}, "too large"), ({"description": "x" * 120_001}, "too large"),
    ({"$ref": "#"}, "without end"), ({"allOf": [{"$ref": "#"}]}, "without end"),
    ({"anyOf": [{"$ref": "#"}]}, "without end"),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "without end"),
    ({"$ref": "http://127.0.0.1/x"}, "not in the schema"), ({"items": {"$ref": "#/nope"}}, "not in the schema"),
    ({"items": {"$ref": "#/$defs/A%20B"}, "$defs": {"A B": {}}}, "not in the schema"),  # the engine reads no escapes
    ({"items": {"$ref": "#/allOf/99999999999999999999"}, "allOf": [{}]}, "not in the schema"),
    ({"pattern": "((a{100}){100}){100}"}, "counts too far"), ({"patternProperties": {"(" * 51: {}}}, "nests"),
    ({"pattern": "x" * 2049}, "2048 characters"), ({"pattern": "a{129}"}, "counts to 129, at most 128"),
]  # fmt: skip


@pytest.mark.parametrize("schema", GOOD)
def test_schemas_that_people_use(schema):
    check_schema(schema, "x")
    check_constraint({"json": schema}, "structured_outputs")
    check_constraint({"json": json.dumps(schema)}, "structured_outputs")
    check_tag({"type": "structural_tag", "structures": [{"schema": schema}], "triggers": ["<"]}, "response_format")


@pytest.mark.parametrize(("schema", "why"), BAD)
def test_schemas_that_are_refused(schema, why):
    with pytest.raises(RefusedError, match=why) as refused:
        check_schema(schema, "text.format.schema")
    assert refused.value.parameter == "text.format.schema"


def test_an_empty_schema_is_fine_for_a_tool():
    check_schema({}, "tools[0].function.parameters", empty=True)
    check_schema({"pattern": "^[a-z]{1,256}$"}, "tools[0].function.parameters", empty=True)  # mostly never compiled


@pytest.mark.parametrize(
    "reference", ["#/components/schemas/X", "https://a.example/s#/$defs/A", "#A", "#/$defs/A%20B", "x"]
)
def test_a_schema_that_is_only_read_may_refer_to_what_it_wants_but_not_to_itself(reference):
    schema = {"$id": "https://a.example/s", "properties": {"a": {"$ref": reference}}}
    check_schema(schema, "x", empty=True, followed=False)
    with pytest.raises(RefusedError, match="not in the schema"):
        check_schema(schema, "x", empty=True)
    with pytest.raises(RefusedError, match="without end"):
        check_schema({**schema, "items": {"$ref": "#/items"}}, "x", empty=True, followed=False)


def test_a_chain_of_references_is_gone_through_once(monkeypatch):
    asked = []
    find = schemas._pointed
    monkeypatch.setattr(schemas, "_pointed", lambda root, reference: asked.append(reference) or find(root, reference))
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(400)}
    ends = {"d400": {"allOf": [{"$ref": "#/$defs/d401"} for _ in range(400)]}, "d401": {"type": "string"}}
    check_schema({"$defs": {**chain, **ends}}, "x")
    assert len(asked) == 400 + 2 * 400  # each in allOf is asked for as a level of its own, and as a part of another


@pytest.mark.parametrize(
    "pattern", ["", "a{3}", r"\d{4}-\d{2}-\d{2}", "[a-z{}()]{1,100}", "(a|b)*c+?", r"\({5000}", "{", "a{,5}"]
)
def test_patterns_that_people_use(pattern):
    check_pattern(pattern, "x")


@pytest.mark.parametrize(
    "pattern",
    [
        "a{99999}",
        "(ab{50}){101}",
        "((((a{9}){9}){9}){9}){9}",
        "\x00",
        "(" * 60,
        "a{1,6000}",
        "(?:[a]{1000}){6}",
        "a" * 3000,
    ],
)
def test_patterns_that_are_refused(pattern):
    with pytest.raises(RefusedError):
        check_pattern(pattern, "x")
    with pytest.raises(RefusedError):
        check_constraint({"regex": pattern}, "structured_outputs")


@pytest.mark.parametrize(
    "constraint",
    [
        {}, {"json": None}, {"json": {}}, {"json": ""}, {"json": "{}"}, {"json": "{"}, {"json": "[" * 10_000},
        {"json": "x" * 300_000}, {"json": "null"}, {"choice": []}, {"choice": [""]}, {"choice": [1]},
        {"choice": ["a"] * 1001}, {"grammar": " "}, {"grammar": "x" * 70_000}, {"grammar": "root ::= " + "(" * 100},
        {"grammar": "root ::= " + "|".join(["'a'"] * 1100)}, {"grammar": 'root ::= "a"{9999}'}, {"structural_tag": ""},
        {"structural_tag": "{}"}, {"structural_tag": {"schema": {"$ref": "#"}}}, {"structural_tag": "[]"},
        {"structural_tag": '{"format": {"type": "regex", "pattern": "a{99999}"}}'},
    ],
)  # fmt: skip
def test_constraints_that_are_refused(constraint):
    with pytest.raises(RefusedError):
        check_constraint(constraint, "structured_outputs")


@pytest.mark.parametrize(
    "constraint",
    [
        None, {"choice": ["yes", "no"]}, {"regex": "a+"}, {"json_object": True}, {"grammar": 'root ::= "a" | "b"'},
        {"json": {"type": "object"}, "whitespace_pattern": " ?"},
    ],
)  # fmt: skip
def test_constraints_that_people_use(constraint):
    check_constraint(constraint, "structured_outputs")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["$ref", "allOf", "anyOf", "pattern", "enum", "properties", "$defs", "items", "schema", "x"]
            ),
            inner | st.sampled_from(["#", "#/$defs/x", "#/allOf/0", "#/"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_schema_raises_anything_else(document):
    for check in (check_schema, check_tag, check_constraint, check_pattern):
        with contextlib.suppress(RefusedError):
            check(document, "x")


@given(st.text(alphabet="ab(){}[]\\|,0159*+?^$.", max_size=40))
def test_no_pattern_raises_anything_else(pattern):
    with contextlib.suppress(RefusedError):
        check_pattern(pattern, "x")

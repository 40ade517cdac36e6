"""The JSON documents of verbs, held against their published schemas."""

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"


def schema_of(document: Any) -> Any:
    """The published schema of a document, found by what it says of itself."""
    name, _, version = str(document["schema"]).removeprefix("nimctl.").partition("/")
    assert version == "1", document["schema"]
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def validate(document: Any) -> None:
    """Raise where a document does not keep to its schema, or has none."""
    jsonschema.Draft202012Validator(schema_of(document)).validate(document)

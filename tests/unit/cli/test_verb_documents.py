"""What verbs print with --json, right and wrong, keeps to the published schemas, and these refuse what they should."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from tests.conftest import Nimctl
from tests.lib.documents import SCHEMAS, validate

LOGIN = {
    "schema": "nimctl.login/1", "ok": True, "registry": "nvcr.io", "stored": "/f", "plaintext": True, "offer": None,
    "warnings": [],
}  # fmt: skip
FAILED = {"id": "key-missing", "message": "m", "cause": "c", "fix": "f", "exit_code": 4, "evidence": []}


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda p: p.stem)
def test_a_schema_is_a_schema(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["title"] and document.get("description", document["title"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("login", "registry.example"), 4),
        (("run", "demo", "--gpus", "none", "--runtime", "process", "--dry-run"), 0),
        (("status", "nobody"), 2),
        (("drift", "nobody"), 2),
        (("bundle", "ls", "/no/such"), 9),
        (("pull", "--nonsense"), 2),
        (("lock", "--nonsense"), 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_real_documents_are_valid(nimctl: Nimctl, bare_host: dict[str, str], arguments, code) -> None:
    done = nimctl(*arguments, "--json", env=bare_host, stdin="")
    assert done.code == code, done.stderr
    report = "-report" if arguments[0] in ("lock", "bundle") else ""  # their own names are those of files
    assert done.document["schema"] == f"nimctl.{arguments[0]}{report}/1"
    validate(done.document)


@pytest.mark.parametrize(
    "change",
    [
        {"unheard-of": 1},
        {"ok": False},
        {"error": FAILED},
        {"plaintext": "yes"},
        {"schema": "nimctl.logout/1"},
    ],
    ids=str,
)
def test_a_schema_refuses_what_it_should(change) -> None:
    validate(LOGIN)
    validate({"schema": "nimctl.login/1", "ok": False, "error": FAILED})
    wrong = copy.deepcopy(LOGIN) | change
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong)

"""The JSON of a plan keeps to its published schema, and the schema refuses what it should."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from nimctl.launch.plan import to_json
from tests.unit.launch.launch_hosts import gpus, host, plan

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/launch-plan.json").read_text())
EIGHT = host(*gpus(8), runtime=True)


@pytest.mark.parametrize(
    "made",
    [
        plan("demo"),
        plan("demo", EIGHT, env=(("MY_TOKEN", "x"),), engine_args=("--max-model-len", "100")),
        plan("demo", runtime="process", image=None),
        plan("kimi-k2.5", EIGHT, secrets_present=("HF_TOKEN",), gpus="device=0,1,2,3,4,5,6,7"),
        plan("kimi-k2.5-nim", EIGHT),
        plan("kimi-k2.5-turbo", EIGHT, uid=0),
    ],
    ids=lambda made: f"{made.name}-{made.runtime}-{made.gpu.mode}",
)
def test_plans_are_valid(made: object) -> None:
    document = json.loads(json.dumps(to_json(made)))  # type: ignore[arg-type]
    jsonschema.validate(document, SCHEMA)


@pytest.mark.parametrize("change", [("port", "host", 0), ("gpu", "mode", "magic"), ("security", "extra", True)])
def test_the_schema_is_not_satisfied_by_anything(change: tuple[str, str, object]) -> None:
    part, key, value = change
    document = copy.deepcopy(json.loads(json.dumps(to_json(plan("demo")))))
    document[part][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)

"""Whatever facts say, sense or nonsense, the checks answer and the JSON round trip loses nothing."""

import dataclasses
import json
import types
import typing
from dataclasses import replace
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimctl.core.errors import CATALOGUE
from nimctl.core.facts import HostFacts, from_json, to_json
from nimctl.doctor import checks
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import errors, run_checks
from tests.unit.doctor.hosts import DEMO, KIMI, NIM, NIM_PAGE

# Values that hosts really report, among arbitrary ones: only those reach the deeper branches.
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["580.95.05", "570.1", "12.9", "24.0.7", "20.10", "1.13.0", "1.19.1", "1.17.0-0ubuntu1", "2770", "1777", "0600",
         "all", "0", "1", "nvidia", "nvidia.com/gpu", "/etc/cdi", "/etc/cdi/nvidia.yaml", "ubuntu", "x86_64", "8:1",
         "btrfs"]
    ),
)  # fmt: skip
SIZES = st.one_of(st.integers(-1, 10), st.integers(0, 2**50))


@cache
def values(hint):
    """Any value of a type hint of the facts."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(option) for option in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(WORDS, values(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{name: values(kind) for name, kind in hints.items() if name != "schema"})
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    return {str: WORDS, int: SIZES, float: numbers, bool: st.booleans(), type(None): st.none()}[hint]


FACTS = values(HostFacts)
# No GPU, one that was asked for, or none at all; whole and half recipes.
NEEDS = st.builds(
    Needs,
    recipe=st.sampled_from([None, KIMI, NIM, NIM_PAGE, DEMO, replace(NIM, weights_bytes=None, disk_bytes=None)]),
    runtime=st.sampled_from(["docker", "process"]),
    gpus=st.sampled_from([None, "none", "all", "1", "0,1", "device=0", "rubbish"]),
    key=st.sampled_from([None, "NGC_API_KEY"]),
    uid=st.sampled_from([None, 0, 12345]),
)
GENEROUS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@GENEROUS
@given(FACTS)
def test_facts_survive_the_way_through_json(facts):
    assert from_json(json.loads(json.dumps(to_json(facts)))) == facts


@GENEROUS
@given(FACTS, NEEDS)
def test_every_check_answers_for_any_facts(facts, needs):
    report = run_checks(facts, needs)
    declared = {c.id: c.says for c in checks.ALL}
    assert {f.check for f in report.findings} == set(declared)
    for finding in report.findings:
        assert finding.id != "check-crashed", finding.cause
        assert finding.title
        if finding.verdict in ("fail", "warn"):
            assert finding.id in declared[finding.check], finding
        if finding.verdict == "fail":
            assert finding.id in CATALOGUE
        if finding.verdict in ("fail", "warn"):
            assert finding.cause, finding
            assert finding.fix, finding
    error = errors(report)
    assert (error is None) == (report.exit_code == 0)
    json.dumps(report.to_json())

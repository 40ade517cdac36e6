"""Running all checks, summing up, and the one error for a run."""

import json
from dataclasses import replace

import pytest

from nimctl.core.errors import CATALOGUE, NimctlError
from nimctl.core.facts import from_json, to_json
from nimctl.doctor import checks
from nimctl.doctor.model import Check, Needs, failed, passed, warned
from nimctl.doctor.runner import Report, errors, run_checks
from tests.unit.doctor.hosts import DEMO, HEALTHY, KIMI, NIM, host, without_gpus

NEEDS = Needs(recipe=KIMI, gpus="all")


def report(*findings):
    return Report(findings, HEALTHY)


def failure(error_id):
    return failed("some-check", error_id, "a title", cause="a cause", fix="A fix.", evidence=("a line",))


def test_a_healthy_host_gives_a_finding_for_every_check_and_no_complaint():
    found = run_checks(HEALTHY, NEEDS)
    assert [f.check for f in found.findings if f.verdict in ("fail", "warn", "unknown")] == []
    assert {f.check for f in found.findings} == {c.id for c in checks.ALL}
    assert (found.worst, found.exit_code, errors(found)) == ("pass", 0, None)
    assert found.closing.startswith("This host is ready: ")


@pytest.mark.parametrize("needs", [Needs(DEMO, gpus="none"), Needs(NIM, gpus="8"), Needs(), Needs(DEMO, "process")])
def test_a_healthy_host_is_ready_for_other_needs_too(needs):
    assert run_checks(HEALTHY, needs).worst == "pass"


def test_ids_and_groups_are_unique_words():
    ids = [c.id for c in checks.ALL]
    assert len(ids) == len(set(ids))
    assert not {c.group for c in checks.ALL} & set(ids) - {"docker"}


def test_only_and_skip_take_checks_and_groups():
    assert {f.check for f in run_checks(HEALTHY, NEEDS, only=["port", "storage"]).findings} == {
        "port", "cache", "cache-entries", "cache-filesystem", "image-filesystem", "disk", "inodes",
    }  # fmt: skip
    left = {f.check for f in run_checks(HEALTHY, NEEDS, skip=["gpu", "key"]).findings}
    assert not left & {"driver", "cuda", "gpus", "key"}
    assert run_checks(HEALTHY, NEEDS, only=["port"], skip=["network"]).findings == ()


@pytest.mark.parametrize("names", [{"only": ["portt"]}, {"skip": ["everything"]}])
def test_a_check_that_does_not_exist_is_a_usage_error(names):
    with pytest.raises(NimctlError) as caught:
        run_checks(HEALTHY, NEEDS, **names)
    assert caught.value.id == "usage"
    assert "--list-checks" in caught.value.fix


def test_a_check_that_crashes_is_a_finding_and_hides_nothing():
    def crash(facts, needs):
        raise ZeroDivisionError("by nothing")

    def well(facts, needs):
        return [passed("well", "well")]

    found = run_checks(HEALTHY, NEEDS, among=[Check("bad", "g", "a bad check", crash), Check("well", "g", "w", well)])
    bad, other = found.findings
    assert (bad.id, bad.verdict, bad.cause) == ("check-crashed", "unknown", "ZeroDivisionError: by nothing")
    assert other.verdict == "pass"
    assert found.exit_code == 0
    assert found.closing.startswith("This host is ready, as far as could be told: ")
    assert replace(found, strict=True).exit_code == 3


@pytest.mark.parametrize(
    ("ids", "code"), [([], 0), (["driver-too-old"], 3), (["port-in-use"], 3), (["port-in-use", "key-missing"], 3)]
)
def test_the_doctor_ends_with_3_whatever_failed(ids, code):
    assert report(passed("a", "a"), *map(failure, ids)).exit_code == code


def test_findings_are_told_in_the_order_of_their_verdicts_and_know_their_group():
    first, second = failure("port-in-use"), warned("a", "some-warning", "t", cause="c", fix="f")
    found = report(passed("b", "b"), second, first)
    assert found.in_order("fail", "warn") == (first, second)
    assert {f.group for f in run_checks(HEALTHY, NEEDS, only=["storage"]).findings} == {"storage"}


def test_warnings_alone_are_ready():
    found = report(warned("a", "some-warning", "t", cause="c", fix="f"), passed("b", "b"))
    assert (found.worst, found.exit_code, found.to_json()["ok"]) == ("warn", 0, True)
    assert found.closing == "This host is ready: 1 passed, 1 to look at."


def test_strict_fails_for_warnings_and_not_for_notes():
    note = warned("a", "some-note", "t", cause="c", fix="A note's fix.", severity="info")
    warning = warned("a", "some-warning", "t", cause="c", fix="A warning's fix.")
    well = Report((note, passed("b", "b")), HEALTHY, strict=True)
    assert (well.exit_code, well.to_json()["ok"]) == (0, True)
    assert well.closing.startswith("This host is ready")
    found = Report((note, warning), HEALTHY, strict=True)
    assert (found.exit_code, found.to_json()["ok"]) == (3, False)
    assert found.closing.endswith("Start with: A warning's fix.")


def test_the_closing_sentence_starts_with_the_first_fix():
    closing = report(passed("a", "a"), failure("port-in-use"), failure("disk-full")).closing
    assert closing == "This host is not ready: 1 passed, 2 failed. Start with: A fix."


def test_one_failure_is_the_error_of_the_run():
    error = errors(report(failure("port-in-use")))
    assert error is not None
    assert (error.id, error.exit_code, error.message) == ("port-in-use", 9, "a title")
    assert error.evidence == ("a line",)


def test_several_failures_are_one_error_that_lists_them():
    error = errors(report(failure("port-in-use"), failure("driver-missing")))
    assert error is not None
    assert (error.id, error.exit_code) == ("preflight-failed", 3)
    assert error.evidence == ("port-in-use: a title. Fix: A fix.", "driver-missing: a title. Fix: A fix.")


def test_a_probe_s_finding_can_be_added():
    assert report().plus(failure("probe-failed")).exit_code == CATALOGUE["probe-failed"].exit_code


SICK = host(
    gpus=without_gpus("mismatch"),
    docker={"state": "hangs", "detail": "no answer within 5 s"},
    cache={"exists": False, "uid": None, "gid": None, "mode": None},
    port={"free": False, "detail": "another program listens there"},
    problems=("gpus: no answer in time",),
)


@pytest.mark.parametrize("facts", [HEALTHY, SICK], ids=["healthy", "sick"])
def test_replay_from_a_file_says_the_same_byte_for_byte(facts):
    live = json.dumps(run_checks(facts, NEEDS).to_json())
    saved = json.dumps(to_json(facts))
    assert json.dumps(run_checks(from_json(json.loads(saved)), NEEDS).to_json()) == live


def test_a_sick_host_fails_with_each_cause_once():
    found = run_checks(SICK, NEEDS)
    assert [f.id for f in found.failures] == ["driver-mismatch", "docker-hangs", "port-in-use"]
    assert found.exit_code == 3

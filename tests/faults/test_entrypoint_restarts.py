"""Fault: the engine is lost while it serves. It alone is started again, within its budget; the port stays open."""

import json
import os
import signal

import pytest

from tests.unit.entrypoint.service import Service, exists, needs_nginx, service, until

pytestmark = needs_nginx


def kill_engine(one: Service) -> int:
    """Kill the engine that runs and return its pid, once another one has been started."""
    pid = one.engine()["pid"]
    os.kill(pid, signal.SIGKILL)
    return int(pid)


def wait_next_engine(one: Service, before: int) -> int:
    return int(until(lambda: (e := one.engine()["pid"]) != before and e))


def test_the_engine_comes_back_behind_the_open_port():
    with service() as one:
        one.start().wait_ready()
        front = one.nginx()
        first = kill_engine(one)
        until(lambda: one.status("/v1/health/ready") == 503)
        second = wait_next_engine(one, first)
        one.wait_ready()
        assert one.chat().status == 200
        assert (one.nginx(), exists(first), exists(second)) == (front, False, True)
        report = one.startup()
        assert (report["state"], report["restarts"]) == ("ready", 1)
        assert report["last_error"]["id"] == "engine-died"
        assert "SIGKILL" in report["last_error"]["message"]
        assert json.loads((one.state / "crash.json").read_text())["error"]["id"] == "engine-died"
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert not exists(second)


def test_live_stays_true_and_calls_say_why_they_are_refused():
    with service() as one:
        one.start().wait_ready().mode("hangs")
        kill_engine(one)
        until(lambda: one.startup().get("state") == "restarting" and one.startup().get("stage") == "engine")
        assert one.status("/v1/health/live") == 200
        refused = one.chat()
        assert refused.status == 503
        assert refused.json["error"]["message"].startswith("Service is restarting its engine (engine-died)")
        assert one.get("/v1/health/ready").json["status"] == "unavailable"


def test_the_budget_ends():
    with service(NIM_ENGINE_RESTARTS="1") as one:
        one.start().wait_ready()
        first = kill_engine(one)
        wait_next_engine(one, first)
        one.wait_ready()
        kill_engine(one)
        assert one.code() == 8
        crash = one.failure()
        assert crash["error"]["id"] == "engine-died"
        assert crash["restarts"] == 1


@pytest.mark.parametrize("mode", ["refuses-argument", "gpu-memory"])
def test_a_restart_that_fails_counts_and_a_refused_configuration_ends_it_at_once(mode):
    with service(NIM_ENGINE_RESTARTS="2") as one:
        one.start().wait_ready().mode(mode)
        kill_engine(one)
        assert one.code() == 8
        crash = one.failure()
        spent = {"refuses-argument": ("engine-config", 1), "gpu-memory": ("engine-out-of-memory", 2)}
        assert (crash["error"]["id"], crash["restarts"]) == spent[mode]


def test_a_first_start_that_fails_is_not_tried_again():
    with service() as one:
        one.mode("dies").start()
        assert one.code() == 8
        assert one.failure()["restarts"] == 0


def test_a_stop_during_a_restart_is_a_stop():
    with service() as one:
        one.start().wait_ready().mode("hangs")
        first = kill_engine(one)
        second = wait_next_engine(one, first)
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert not exists(second)


def test_what_the_lost_engine_left_behind_is_gone_before_the_next_starts():
    with service() as one:
        one.mode("has-children").start().wait_ready()
        grandchild = int(until((one.fake / "grandchild").read_text))
        one.mode("serve")
        first = kill_engine(one)
        wait_next_engine(one, first)
        assert not exists(grandchild)
        one.wait_ready()


def test_the_supervisor_killed_takes_everything_with_it():
    with service() as one:
        one.start().wait_ready()
        pids = [one.nginx(), one.engine()["pid"]]
        one.signal(signal.SIGKILL)
        one.code()
        until(lambda: not any(exists(pid) for pid in pids))
        assert one.status("/v1/health/live") is None


def test_the_crash_report_tells_of_memory():
    with service(NIM_ENGINE_RESTARTS="0") as one:
        one.start().wait_ready()
        kill_engine(one)
        assert one.code() == 8
        memory = one.failure()["memory"]
        assert memory["host"]["total"] > memory["host"]["available"] > 0
        assert memory["gpus"] == []
        last = json.loads(one.out.splitlines()[-1])
        assert last["process"] == {"name": "engine", "code": None, "signal": "SIGKILL"}
        assert last["memory"] == memory

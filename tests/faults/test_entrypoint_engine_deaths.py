"""Fault: the engine ends, hangs or answers badly. The container ends with the cause named, and never with 0."""

import os
import signal

import pytest

from tests.unit.entrypoint.service import exists, needs_nginx, service, until

pytestmark = needs_nginx


@pytest.mark.parametrize(
    ("mode", "error_id", "cause"),
    [
        ("dies", "engine-died", "the checkpoint does not fit its config"),
        ("refuses-argument", "engine-config", "--no-such-option"),
        ("gpu-memory", "engine-out-of-memory", "CUDA out of memory"),
        ("exits-0", "engine-died", "exit code 0"),
    ],
)
def test_dies_at_start(mode, error_id, cause):
    with service() as one:
        one.mode(mode).start()
        assert one.code() == 8
        crash = one.failure()
        assert crash["error"]["id"] == error_id
        assert cause in crash["error"]["cause"]
        assert (crash["stage"], crash["process"]["name"]) == ("engine", "engine")
        assert one.startup()["stages"][6]["error_id"] == error_id
        assert one.status("/v1/health/live") is None, "nginx is gone as well"


def test_killed_while_serving():
    with service(NIM_ENGINE_RESTARTS="0") as one:
        one.start().wait_ready()
        os.kill(one.engine()["pid"], signal.SIGKILL)
        assert one.code() == 8
        crash = one.failure()
        assert crash["error"]["id"] == "engine-died"
        assert "while serving with SIGKILL" in crash["error"]["message"]
        assert crash["process"]["signal"] == "SIGKILL"


def test_ends_with_0_while_serving():
    with service(NIM_ENGINE_RESTARTS="0") as one:
        one.start().wait_ready()
        one.mode("dies-of-request")
        one.chat()
        assert one.code() == 8
        assert one.failure()["error"]["cause"] == "RuntimeError: the kernel could not be compiled"


def test_dies_of_the_warm_up_request():
    with service() as one:
        one.mode("dies-of-request").start()
        assert one.code() == 8
        crash = one.failure()
        assert crash["error"]["id"] == "engine-died", "its death is the cause, not the request that was not answered"
        assert crash["stage"] == "warmup"


def test_answers_the_warm_up_badly():
    with service() as one:
        one.mode("bad-answers").start()
        assert one.code() == 8
        assert one.failure()["error"]["id"] == "warmup-failed"


def test_hangs_at_start():
    with service(NIM_ENGINE_STALL_SECONDS="1") as one:
        one.mode("hangs").start()
        assert one.code() == 8
        assert one.failure()["error"]["id"] == "engine-stalled"
        assert not exists(one.engine()["pid"])


def test_leaves_processes_behind():
    with service(NIM_ENGINE_RESTARTS="0") as one:
        one.mode("has-children").start().wait_ready()
        grandchild = int(until((one.fake / "grandchild").read_text))
        os.kill(one.engine()["pid"], signal.SIGKILL)
        assert one.code() == 8
        assert not exists(grandchild), "also one that went into a session of its own"


def test_nginx_killed():
    with service() as one:
        one.start().wait_ready()
        os.kill(one.nginx(), signal.SIGKILL)
        assert one.code() == 8
        crash = one.failure()
        assert crash["error"]["id"] == "front-died"
        assert crash["process"]["name"] == "front"
        assert not exists(one.engine()["pid"]), "the engine does not run on unseen"


def test_engine_that_cannot_be_started():
    with service(NIM_ENGINE_EXECUTABLE="/no/such/vllm") as one:
        one.start()
        assert one.code() == 3
        assert one.failure()["error"]["id"] == "engine-missing"

"""Fault: the engine is green and sick: it answers garbage, or nothing. Ready is withdrawn and the engine replaced."""

import pytest

from tests.unit.entrypoint.service import Service, exists, needs_nginx, service, until

pytestmark = needs_nginx

QUICK = {"NIM_CANARY_INTERVAL": "0.2", "NIM_CANARY_TIMEOUT": "1"}


def replaced(one: Service, sick: int) -> str:
    """The id of what was wrong with the engine `sick`, once another one serves in its place."""
    until(lambda: one.ended() or one.startup().get("restarts") == 1)
    one.alive().mode("serve")
    one.wait_ready()
    assert one.engine()["pid"] != sick and not exists(sick)
    return str(one.startup()["last_error"]["id"])


@pytest.mark.parametrize("mode", ["nan", "repeats", "forgets"])
def test_garbage(mode):
    with service(**QUICK) as one:
        one.start().wait_ready()
        sick = one.engine()["pid"]
        one.mode(mode)
        assert replaced(one, sick) == "engine-answers-garbage"
        assert one.chat().status == 200


def test_a_hang():
    with service(**QUICK) as one:
        one.start().wait_ready()
        sick = one.engine()["pid"]
        (one.fake / "metrics").write_text("vllm:num_requests_running 1.0\n")
        one.hold("chat")
        until(lambda: one.ended() or one.startup().get("restarts") == 1)
        one.alive().release("chat")
        (one.fake / "metrics").unlink()
        assert replaced(one, sick) == "engine-hangs"


def test_without_a_budget_it_is_the_end_and_the_cause_is_told():
    with service(NIM_ENGINE_RESTARTS="0", **QUICK) as one:
        one.start().wait_ready().mode("repeats")
        assert one.code() == 8
        assert one.failure()["error"]["id"] == "engine-answers-garbage"


def test_a_canary_is_no_reason_to_wait_when_we_are_stopped():
    with service(NIM_DRAIN_SECONDS="3600", NIM_CANARY_INTERVAL="0.2", NIM_CANARY_TIMEOUT="3600") as one:
        one.start().wait_ready()
        one.hold("chat")
        asked = len(one.asked())
        until(lambda: len(one.asked()) > asked)
        one.signal(15)
        assert one.code() == 143

"""Fault: the engine is green and sick. Ready is withdrawn with the reason, and the engine alone is started again."""

import signal

import pytest

from entrypoint.front import open_requests
from entrypoint.unixhttp import get_unix
from tests.unit.entrypoint.service import needs_nginx, service, until

pytestmark = needs_nginx

QUICK = {"NIM_CANARY_INTERVAL": "0.1", "NIM_CANARY_TIMEOUT": "0.8"}


def restarted_for(one):
    """The id of the error for which the engine was started again, once the service is ready anew."""
    until(lambda: one.alive().startup().get("last_error"))
    one.mode("serve")
    (one.fake / "hold-chat").unlink(missing_ok=True)
    one.wait_ready()
    return one.startup()["last_error"]["id"]


@pytest.mark.parametrize("mode", ["nan", "repeats"])
def test_answers_garbage(mode):
    with service(**QUICK) as one:
        engine = one.start().wait_ready().engine()["pid"]
        one.mode(mode)
        assert restarted_for(one) == "engine-answers-garbage"
        assert one.engine()["pid"] != engine


def test_hangs_with_a_green_health():
    with service(**QUICK) as one:
        one.start().wait_ready().hold("chat")
        assert restarted_for(one) == "engine-hangs"


def test_computes_nothing_but_nan_from_the_start():
    with service() as one:
        one.mode("nan").start()
        assert one.code() == 8
        assert one.failure()["error"]["id"] == "engine-answers-garbage"


def test_a_canary_under_way_holds_no_stop_up():
    with service(NIM_CANARY_INTERVAL="0.1", NIM_CANARY_TIMEOUT="1000") as one:
        one.start().wait_ready().hold("chat")
        until(lambda: open_requests(get_unix(one.state / "front.sock", "/counters").body.decode()) > 0)
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert "did not finish in time" not in one.out

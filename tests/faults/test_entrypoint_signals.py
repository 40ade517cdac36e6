"""Fault: somebody stops the container, at any moment, once or twice."""

import http.client
import json
import os
import signal
import threading
import time

import pytest

from entrypoint.processes.child import descendants
from tests.unit.entrypoint.service import Service, exists, needs_nginx, service, until

pytestmark = needs_nginx

CODES = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def assert_gone(one: Service) -> None:
    assert one.status("/v1/health/live") is None
    assert not (one.state / "public/ready").exists()
    assert one.startup()["state"] == "stopping"
    assert "Traceback" not in one.err


def test_while_weights_are_read():
    with service() as one:
        weights = one.state.parent / "weights"
        weights.mkdir()
        (weights / "config.json").write_text("{}")
        os.mkfifo(weights / "model.safetensors")  # whoever reads it waits for ever
        one.start().wait_stage("weights").signal(signal.SIGTERM)
        assert one.code() == 143
        assert_gone(one)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_the_engine_loads(number, code):
    with service() as one:
        one.mode("hangs").start().wait_stage("engine")
        pid = one.engine()["pid"]
        one.signal(number)
        assert one.code() == code
        assert_gone(one)
        assert not exists(pid)


def test_during_the_warm_up():
    with service() as one:
        one.hold("chat").start().wait_asked(1).signal(signal.SIGTERM)
        assert one.code() == 143
        assert_gone(one)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_serving_nothing(number, code):
    with service() as one:
        one.start().wait_ready().signal(number)
        assert one.code() == code
        assert_gone(one)


def test_a_running_stream_is_finished_and_new_requests_are_refused():
    with service() as one:
        one.hold("stream").start().wait_ready()
        stream = Stream(one)
        until(lambda: b"first" in stream.received)
        one.signal(signal.SIGTERM)
        until(lambda: one.status("/v1/health/ready") == 503)
        refused = one.chat()
        assert refused is not None and refused.status == 503
        assert refused.json["error"]["message"].startswith("Service is stopping")
        assert one.status("/v1/health/live") == 200
        one.release("stream")
        assert one.code() == 143
        assert stream.text().endswith("data: [DONE]\n\n")
        assert_gone(one)


def test_a_stream_longer_than_the_drain_time_is_cut():
    with service(NIM_DRAIN_SECONDS="1") as one:
        one.hold("stream").start().wait_ready()
        stream = Stream(one)
        until(lambda: b"first" in stream.received)
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert "1 request(s) did not finish in time" in one.out
        assert "[DONE]" not in stream.text()


def test_a_second_signal_cuts_the_drain_short():
    with service(NIM_DRAIN_SECONDS="3600") as one:
        one.hold("stream").start().wait_ready()
        stream = Stream(one)
        until(lambda: b"first" in stream.received)
        one.signal(signal.SIGTERM)
        until(lambda: "waiting for 1 request(s)" in one.out)
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert "[DONE]" not in stream.text()


def test_an_engine_that_ignores_the_signal_is_killed():
    with service(NIM_DRAIN_SECONDS="1") as one:
        one.mode("ignores-term").start().wait_ready()
        pid = one.engine()["pid"]
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert not exists(pid)


def test_requests_of_a_killed_worker_are_not_waited_for():
    with service(NIM_DRAIN_SECONDS="3600") as one:
        one.hold("stream").start().wait_ready()
        stream = Stream(one)
        until(lambda: b"first" in stream.received)
        for worker in descendants(one.nginx()):
            os.kill(worker, signal.SIGKILL)
        stream.text()
        one.release("stream")
        until(lambda: one.status("/v1/health/ready") == 200 and len(descendants(one.nginx())) > 0)
        time.sleep(1.5)  # the supervisor looks once a second
        one.signal(signal.SIGTERM)
        assert one.code() == 143


class Stream:
    """A streaming request in the background."""

    def __init__(self, one: Service) -> None:
        self.received = b""
        self._one = one
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._one.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps({"stream": True, "messages": []}))
        try:
            response = connection.getresponse()
            while data := response.read1(4096):
                self.received += data
        except (OSError, http.client.HTTPException):
            pass  # it was cut, which the test looks at
        finally:
            connection.close()

    def text(self) -> str:
        """Everything that came, once no more comes."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.received.decode()

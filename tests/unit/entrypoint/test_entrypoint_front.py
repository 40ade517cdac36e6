"""The public port: what is reachable when, in which shape, and when ready is true."""

import json

import pytest

from entrypoint.front import open_requests
from tests.unit.entrypoint.service import Response, Service, needs_nginx, service, until

pytestmark = needs_nginx

NO_STORE = "no-store, no-cache, must-revalidate"
SHUT = ("/secret-route", "/health", "/metrics", "/v1", "/v1/nope", "/internal/unready", "/counters", "/pause")


@pytest.fixture(scope="module")
def running():
    with service() as one:
        yield one.start().wait_ready()


def get(one: Service, path: str) -> Response:
    answer = one.get(path)
    assert answer is not None
    return answer


def test_live_is_true_and_ready_is_not_before_the_engine_serves():
    with service() as one:
        one.mode("hangs").start().wait_live()
        until(lambda: get(one, "/v1/health/ready").json.get("stage") == "engine")
        live, ready = get(one, "/v1/health/live"), get(one, "/v1/health/ready")
        assert live.body == b'{"object":"health.response","message":"Service is live","status":"ok"}'
        assert ready.status == 503
        assert ready.json == {
            "object": "health.response",
            "message": "Service is starting: stage engine",
            "status": "unavailable",
            "stage": "engine",
        }
        for answer in (live, ready):
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == NO_STORE
        refused = one.chat()
        assert refused is not None
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json["error"]["code"] == 503
        assert refused.json["error"]["type"] == "ServiceUnavailableError"
        assert one.asked() == [], "nothing reaches the engine"
        metrics = get(one, "/v1/metrics")
        assert (metrics.status, b"vllm:" in metrics.body) == (200, False), "ours alone"


def test_ready_is_never_true_before_a_completion_was_answered():
    with service() as one:
        one.hold("chat").start().wait_asked(4)
        assert one.status("/v1/health/ready") == 503, "a warm-up request is running, unanswered"
        stranger = one.chat()
        assert stranger is not None and stranger.status == 503, "the warm-up's door is for the warm-up alone"
        assert len(one.asked()) == 4
        one.release("chat")
        one.wait_ready()
        asked = [r["body"] for r in one.asked()]
        (reading,) = (b for b in asked if "messages" not in b)
        assert reading["prompt_logprobs"] == 0, "what the canary will compare with"
        chats = [b for b in asked if b is not reading]
        kinds = sorted("tool" if "tools" in b else type(b["messages"][0]["content"]).__name__ for b in chats)
        assert kinds == ["list", "str", "tool"], "an image, a text and a tool call came before ready, all at once"


def test_the_warm_up_token_reaches_neither_engine_nor_log(running):
    token = next(
        line.split('"')[1] for line in (running.state / "nginx.conf").read_text().splitlines() if line.endswith('" 1;')
    )
    assert len(token) == 64
    assert (running.state / "nginx.conf").stat().st_mode & 0o077 == 0
    assert token not in json.dumps(running.asked())
    assert token not in running.out + running.err


def test_ready(running):
    ready = get(running, "/v1/health/ready")
    assert ready.body == b'{"object":"health.response","message":"Service is ready","status":"ok"}'
    assert ready.headers["cache-control"] == NO_STORE
    report = get(running, "/v1/health/startup")
    assert report.json["state"] == "ready"
    assert [s["state"] for s in report.json["stages"]] == ["done"] * 8
    assert report.headers["content-type"] == "application/json"


def test_the_api_passes(running):
    assert [m["id"] for m in get(running, "/v1/models").json["data"]] == [
        "moonshotai/kimi-k2.5",
        "moonshotai/kimi-k2.5-turbo",
        "demo",
    ]
    answer = running.chat()
    assert answer is not None and answer.json["choices"][0]["message"]["content"] == "hello"
    assert b"vllm:num_requests_running" in get(running, "/v1/metrics").body


@pytest.mark.parametrize("path", SHUT)
def test_whatever_is_not_listed_is_404(running, path):
    answer = get(running, path)
    assert answer.status == 404
    assert answer.json["error"]["code"] == 404
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/models/../../secret-route", "/secret-route%2f..%2fv1/models", "//secret-route"])
def test_no_spelling_leads_past_the_list(running, path):
    answer = get(running, path)
    assert b"must not be reachable" not in answer.body


def test_a_body_that_is_too_large_is_413(running):
    answer = running.ask("POST", "/v1/chat/completions", None, {"Content-Length": str(65 * 2**20)})
    assert answer is not None and answer.status == 413
    assert answer.json["error"]["code"] == 413


def test_an_error_of_the_engine_passes_as_it_is(running):
    running.mode("bad-answers")
    try:
        answer = running.chat()
    finally:
        running.mode("serve")
    assert answer is not None
    assert (answer.status, answer.json) == (500, {"error": {"message": "no"}})


def test_the_static_documents(running):
    metadata, manifest = get(running, "/v1/metadata").json, get(running, "/v1/manifest").json
    assert metadata["tensorParallelSize"] == 1
    assert metadata["modelInfo"][0]["shortName"] == "moonshotai/kimi-k2.5"
    assert len(metadata["selectedModelProfileId"]) == 64
    assert "config.json" in [f["path"] for f in manifest["files"]]
    assert set(get(running, "/v1/version").json) >= {"release", "api"}
    assert get(running, "/v1/license").json["name"] == "none given"


def test_the_engine_gets_no_key():
    keys = {"NGC_API_KEY": "nvapi-canary-123456", "HF_TOKEN": "hf_canary123456", "MY_SERVICE_PASSWORD": "canary-pass"}
    with service(**keys) as one:
        one.start().wait_ready()
        seen = json.dumps(one.engine())
        assert "canary" not in seen
        assert "canary" not in one.out + one.err
        assert one.engine()["environ"]["HF_HUB_OFFLINE"] == "1"


def test_open_requests_counts_all_but_its_own():
    text = "Active connections: 9 \nserver accepts handled requests\n 9 9 99 \nReading: 0 Writing: 3 Waiting: 6 \n"
    assert open_requests(text) == 2
    with pytest.raises(ValueError, match="Writing"):
        open_requests("<html>")

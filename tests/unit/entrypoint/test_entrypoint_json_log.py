"""The log of a whole server: each line is one object in JSON mode, whatever the engine writes."""

import json

import pytest

from tests.unit.entrypoint.service import Service, needs_nginx, service, until

pytestmark = needs_nginx
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
NIM_KEYS = ["level", "time", "file_name", "line_number", "message"]


def log(one: Service) -> list[dict[str, object]]:
    """Every line of stdout, parsed; nothing may be on stderr."""
    text = (one._place / "out").read_bytes().decode("ascii")
    assert one.err == ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture(scope="module")
def lines():
    with service(NIM_JSONL_LOGGING="1") as one:
        one.mode("odd-lines").start().wait_ready()
        metrics = until(
            lambda: (answer := one.get("/v1/metrics")) and b"nimctl_start_seconds" in answer.body and answer
        )
        one.ask("POST", "/v1/chat/completions", {"model": "demo", "messages": []}, TRACE)
        assert TRACE.items() <= {k.lower(): v for k, v in one.asked()[-1]["headers"].items()}.items()
        one.signal(15)
        assert one.code() == 143
        yield log(one), metrics.body.decode()


def test_every_line_has_the_members_of_nim_first(lines):
    for line in lines[0]:
        assert list(line)[:5] == NIM_KEYS and line["stage"], line
        assert "\n" not in str(line["time"]) and line["level"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def test_what_the_engine_said_is_there_each_message_once(lines):
    told = [line for line in lines[0] if line["stage"] == "engine" and "event" not in line]
    by_text = {str(line["message"]): line for line in told}
    worker = by_text["worker failed\nTraceback (most recent call last):\nValueError: seven"]
    assert (worker["process"], worker["pid"]) == ("Worker_TP1", 77)
    assert (worker["file_name"], worker["line_number"]) == ("core.py", 5)
    raw = next(line for text, line in by_text.items() if 'RuntimeError: {"quoted": 1}' in text)
    assert (raw["level"], raw["file_name"], raw["line_number"]) == ("ERROR", "runner.py", 12)
    assert sum(len(str(line["message"])) for line in told if str(line["message"]).startswith("xxx")) == 100_000
    assert "100%|##########" in by_text and "50%|#####" not in by_text
    assert by_text["from json"]["level"] == "WARNING"
    assert "the key is ***" in by_text
    assert any("binary red" in text for text in by_text)


def test_stages_tell_when_they_begin_and_end_and_ready_tells_all(lines):
    events = [(line["event"], line["stage"]) for line in lines[0] if "event" in line]
    assert events[0] == ("stage_end", "settings")
    assert events[1:3] == [("stage_begin", "front"), ("stage_end", "front")]
    assert events[-1] == ("ready", "ready")
    ends = {line["stage"]: line for line in lines[0] if line.get("event") == "stage_end"}
    assert all(line["seconds"] >= 0 and line["state"] == "done" for line in ends.values())
    assert {"text", "tool", "image"} <= set(ends["warmup"]["steps"])
    assert "warmup" in str(lines[0][[line.get("event") for line in lines[0]].index("ready")]["message"])


def test_our_metrics_stand_before_the_engine_s(lines):
    text = lines[1]
    assert 'nimctl_stage_seconds{stage="engine"}' in text
    assert text.index("nimctl_ready 1") < text.index("vllm:num_requests_running")


def test_a_failure_is_an_object_as_well():
    with service(NIM_JSONL_LOGGING="1") as one:
        one.mode("dies").start()
        assert one.code() == 8
        last = log(one)[-1]
        assert list(last)[:5] == NIM_KEYS
        assert (last["event"], last["error"]["id"], last["level"]) == ("failed", "engine-died", "CRITICAL")


def test_wrong_settings_are_told_in_the_form_that_was_asked_for():
    with service(NIM_JSONL_LOGGING="1", NIM_SERVER_PORT="no") as one:
        one.start()
        assert one.code() != 0
        assert log(one)[-1]["error"]["id"] == "config-invalid"


def test_traces_without_an_address_are_refused_before_anything_else_starts():
    with service(NIM_JSONL_LOGGING="1", NIM_ENABLE_OTEL="1") as one:
        one.start()
        assert one.code() != 0
        assert "needs an address" in log(one)[-1]["error"]["message"]
        assert [stage["state"] for stage in one.startup()["stages"]][:2] == ["failed", "pending"]

"""What is reachable on the public port, how, and what the rest is told."""

import json
import socket

import pytest

from entrypoint.front import front_of
from entrypoint.front.counting import RequestCounts, reopen_logs
from entrypoint.front.refusals import refusals
from entrypoint.front.routes import ENGINE, OURS, table
from entrypoint.settings import read
from entrypoint.state import State
from tests.unit.entrypoint.front_lab import TOKEN, Lab, lab
from tests.unit.entrypoint.service import free_port, needs_nginx, until

pytestmark = needs_nginx

NO_STORE = "no-store, no-cache, must-revalidate"


@pytest.fixture(scope="module")
def one():
    with lab() as running:
        yield running
        assert "[emerg]" not in running.log[-1] if running.log else True


def concrete(path: str) -> str:
    return path.replace("{response_id}", "resp_0-a")


def is_openai_error(answer, status: int) -> bool:
    error = answer.json["error"]
    return (
        answer.status == status
        and answer.headers["content-type"] == "application/json"
        and set(error) == {"message", "type", "param", "code"}
        and error["code"] == status
        and bool(error["message"])
    )


@pytest.mark.parametrize("route", ENGINE, ids=lambda r: r.path)
def test_a_route_of_the_engine_gets_there_as_it_is_written(one: Lab, route):
    path = concrete(route.path)
    before = len(one.asked)
    answer = one.ask(route.methods[0], path + "?a=1&b=%2F", {"x": 1} if "POST" in route.methods else None)
    assert (answer.status, answer.json) == (200, {"engine": True})
    (seen,) = one.asked[before:]
    assert (seen.method, seen.path) == (route.methods[0], path + "?a=1&b=%2F")
    assert seen.body == (b'{"x": 1}' if "POST" in route.methods else b"")


@pytest.mark.parametrize("route", table(), ids=lambda r: r.path)
def test_a_wrong_method_is_told_the_right_one(one: Lab, route):
    before = len(one.asked)
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND"} - set(route.methods):
        answer = one.ask(method, concrete(route.path), b"")
        assert answer.headers["allow"] == ", ".join((*route.methods, "OPTIONS")), method
        if route.anthropic:
            assert (answer.status, answer.json["type"]) == (405, "error")
        else:
            assert is_openai_error(answer, 405)
    assert len(one.asked) == before


CLOSED = (
    "/health",
    "/metrics",
    "/version",
    "/load",
    "/ping",
    "/invocations",
    "/pause",
    "/abort_requests",
    "/inference/v1/generate",
    "/inference/v1/abort_requests",
    "/collective_rpc",
    "/v1/load_lora_adapter",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/messages/render",
    "/v1/chat/completions/derender",
    "/v1/systemone",
    "/v1",
    "/v1/",
    "/",
    "/v1/models/",
    "/V1/models",
    "/v1/chat/completions/",
    "/v1/responses/",
    "/v1/responses/a/b",
    "/v1/responses/a/cancel/",
    "/v1/responses/a%2Fcancel%2Fx",
    "/v1/responses/a%20b",
    "/v1/responses/" + "a" * 129,
    "/v1/models;x",
    "/v1/models%00",
    "/v1/models%3Fx",
    "/internal/unready",
    "/internal/errors/404",
    "/internal/preflight",
    "/internal/metrics/engine",
    "/internal/metrics/ours",
    "/internal/nothing",
    "/internal/refusal",
    "/counters",
    "/docs/",
    "/docs/../nginx.conf",
    "/docs/explorer.html",
    "/docs/oauth2-redirect",
    "/startup.json",
    "/v1/metrics.ssi",
)


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_rest_is_closed(one: Lab, path, method):
    before = len(one.asked)
    answer = one.ask(method, path, b"" if method == "POST" else None)
    assert answer.status in (400, 404)
    assert is_openai_error(answer, answer.status)
    assert len(one.asked) == before


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/models/../../health HTTP/1.1",
        b"GET /v1/models/..%2f..%2fhealth HTTP/1.1",
        b"GET /v1/models/%2e%2e/%2e%2e/health HTTP/1.1",
        b"GET /v1/responses/..%2f..%2fhealth HTTP/1.1",
        b"GET /v1/responses/%2e%2e/health HTTP/1.1",
        b"GET //health HTTP/1.1",
        b"GET /./health HTTP/1.1",
        b"GET /%68ealth HTTP/1.1",
        b"GET /v1/models\\..\\health HTTP/1.1",
        b"GET http://engine/health HTTP/1.1",
        b"GET http://localhost/../health HTTP/1.1",
        b"GET unix:/health HTTP/1.1",
        b"GET /health",
        b"CONNECT engine:80 HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /v1/realtime HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: YWJj\r\nSec-WebSocket-Version: 13",
        b"POST /v1/models HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0",
    ],
)
def test_no_spelling_leads_past_the_list(one: Lab, line):
    before = len(one.asked)
    got = one.raw(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 200 " not in got.split(b"\r\n")[0]
    assert b"101 " not in got
    assert len(one.asked) == before


@pytest.mark.parametrize(
    "line", [b"GET //v1/models", b"GET /v1/./models", b"GET /v1/%6dodels", b"GET http://x/v1/models"]
)
def test_another_spelling_of_a_listed_path_is_that_path_to_the_engine(one: Lab, line):
    before = len(one.asked)
    one.raw(line + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n")
    (seen,) = one.asked[before:]
    assert seen.path == "/v1/models"
    assert not seen.header("Upgrade")


def test_head_of_health_and_documents(one: Lab):
    for path in ("/v1/health/live", "/v1/health/ready", "/v1/health/startup", "/v1/version", "/docs", "/v1/metrics"):
        answer = one.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b""), path
        assert answer.headers["cache-control"] == NO_STORE, path


def test_malformed_and_oversized_requests_are_told_so_in_json(one: Lab):
    def status(request: bytes) -> int:
        head, _, body = one.raw(request).partition(b"\r\n\r\n")
        code = int(head.split()[1])
        assert json.loads(body)["error"]["code"] == code, head
        return code

    assert status(b"GET / HTTP/1.1\r\n\r\n") == 400, "no Host"
    assert status(b"nonsense\r\n\r\n") == 400
    assert status(b"GET / HTTP/3.0\r\nHost: x\r\n\r\n") == 505
    assert status(b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 414
    assert status(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20000 + b"\r\n\r\n") == 431
    post = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert status(post + b"Content-Length: 99999999\r\n\r\n") == 413
    assert status(post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == 400
    assert status(post + b"Transfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n") == 501


@pytest.mark.parametrize("path", ["/v1/messages", "//v1/./messages?beta=true"])
def test_refusals_of_the_messages_api_have_its_shape(one: Lab, path: str):
    def told(method: str, *headers: str) -> tuple[int, str]:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
        head, _, body = one.raw("\r\n".join([*lines, "", ""]).encode()).partition(b"\r\n\r\n")
        document = json.loads(body)
        assert document["type"] == "error", document
        return int(head.split()[1]), document["error"]["type"]

    assert told("GET") == (405, "invalid_request_error")
    assert told("POST", "Content-Encoding: gzip", "Content-Length: 0") == (415, "invalid_request_error")
    if path == "/v1/messages":  # the size is looked at before the location is known; the address then decides
        assert told("POST", "Content-Length: 99999999") == (413, "request_too_large")


def test_a_chunked_body_that_does_not_end_is_cut_at_the_limit():
    with lab(max_body_mib=1) as small:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert small.raw(head + chunk * 17).startswith(b"HTTP/1.1 413 ")
        assert small.asked == []


def test_a_packed_body_is_refused(one: Lab):
    before = len(one.asked)
    assert is_openai_error(one.chat(Content_Encoding="gzip"), 415)
    assert len(one.asked) == before
    assert one.chat(Content_Encoding="identity").status == 200


def test_each_answer_has_one_request_id_and_the_engine_knows_it(one: Lab):
    answer = one.chat(X_Request_Id="mine-1.2:3/4+5=6@7_8")
    assert answer.headers["x-request-id"] == "mine-1.2:3/4+5=6@7_8"
    assert one.asked[-1].header("X-Request-Id") == ["mine-1.2:3/4+5=6@7_8"]
    for bad in ("a b", "x" * 129, "a\tb", 'a"b', "é"):
        made = one.chat(X_Request_Id=bad).headers["x-request-id"]
        assert len(made) == 32 and set(made) <= set("0123456789abcdef")
        assert one.asked[-1].header("X-Request-Id") == [made]
    for path in ("/nothing", "/v1/health/live", "/v1/version", "/docs", "/v1/metrics"):
        assert one.get(path, X_Request_Id="mine").headers["x-request-id"] == "mine", path


def test_an_unready_server_refuses_in_each_clients_shape():
    with lab(ready=False) as starting:
        assert is_openai_error(starting.chat(), 503)
        assert starting.chat().headers["retry-after"] == "5"
        message = starting.ask("POST", "/v1/messages", {"model": "m"})
        assert (message.status, message.json["type"]) == (503, "error")
        assert message.json["error"]["type"] == "overloaded_error"
        assert starting.asked == []
        assert starting.chat(X_Nimctl_Warmup=TOKEN).status == 200
        assert starting.asked[-1].header("X-Nimctl-Warmup") == []
        assert starting.chat(X_Nimctl_Warmup=TOKEN[:-1]).status == 503
        assert is_openai_error(starting.get("/v1/manifest"), 503)


def test_an_engine_that_is_gone():
    with lab() as one:
        one.lose_engine()
        assert is_openai_error(one.chat(), 502)
        message = one.ask("POST", "/v1/messages/count_tokens", {})
        assert (message.status, message.json["error"]["type"]) == (502, "api_error")


def test_metrics_are_both_texts_and_ours_alone_without_the_engine():
    with lab(ready=False) as one:
        answer = one.get("/v1/metrics", Accept="application/openmetrics-text", Accept_Encoding="gzip")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.body == b"vllm:up 1\n", "ours is not there yet"
        assert one.asked[-1].header("Accept") == [], "the engine is asked for plain text"
        (one.state.public / "metrics.txt").write_text('nimctl_restarts_total 1\nx{y="<!--# echo -->"} 1\n')
        assert one.get("/v1/metrics").body == b'nimctl_restarts_total 1\nx{y="<!--# echo -->"} 1\nvllm:up 1\n'
        assert one.engine is not None
        for broken in ((500, "text/html", "<h1>no</h1>"), (404, "application/json", "{}"), (302, "text/plain", "x")):
            one.engine.answers["/metrics"] = broken
            assert one.get("/v1/metrics").body.endswith(b'-->"} 1\n'), broken
        one.lose_engine()
        gone = one.get("/v1/metrics")
        assert (gone.status, gone.body) == (200, b'nimctl_restarts_total 1\nx{y="<!--# echo -->"} 1\n')
        with socket.socket(socket.AF_UNIX) as bound:  # as an engine does first of all, long before it listens
            bound.bind(str(one.state.engine_socket))
            assert one.get("/v1/metrics").status == 200
    assert one.log == [""], "a scraper without an engine alarms nobody"


def test_requests_are_counted_by_route_and_code():
    with lab() as one:
        assert one.process is not None
        counts = RequestCounts(one.state.request_log, lambda: reopen_logs(one.process.pid), largest=64)
        one.chat()
        one.ask("POST", "/v1/messages", b"")
        one.chat(X_Nimctl_Warmup=TOKEN)  # our own are nobody's
        one.get("/nothing")
        one.ask("DELETE", "/v1/models")
        one.raw(b"nonsense\r\n\r\n")
        expected = {
            ("/v1/chat/completions", "200"): 1,
            ("/v1/messages", "200"): 1,
            ("other", "404"): 1,
            ("/v1/models", "405"): 1,
            ("other", "400"): 1,
        }
        until(lambda: counts.read() == expected, 10)
        until(one.state.request_log.exists, 10)  # it was larger than 64 bytes: another was begun
        one.chat()
        expected["/v1/chat/completions", "200"] = 2
        until(lambda: counts.read() == expected, 10)
        until(lambda: counts.read() and not one.state.request_log.with_suffix(".old").exists(), 10)
        counts.close()


def test_counts_survive_a_log_that_is_not_there(tmp_path):
    assert RequestCounts(tmp_path / "none", lambda: None).read() == {}


def test_a_health_port_has_health_and_metrics_and_nothing_else():
    with lab(health_port=free_port(), ready=False) as one:
        port = one.front.health_port
        assert one.ask("GET", "/v1/health/live", port=port).status == 200
        unready = one.ask("GET", "/v1/health/ready", port=port)
        assert (unready.status, unready.json) == (503, {"status": "unavailable"})
        assert one.get("/v1/health/ready").json == {"status": "unavailable"}
        assert one.ask("GET", "/v1/health/startup", port=port).json == {"state": "starting"}
        assert one.ask("GET", "/v1/metrics", port=port).body == b"vllm:up 1\n"
        for path in ("/v1/models", "/v1/chat/completions", "/docs", "/v1/version", "/health", "/internal/unready"):
            assert is_openai_error(one.ask("GET", path, port=port), 404)
        assert one.get("/v1/health/live").status == 200, "both: nimctl and the pod's own port keep working"


def test_what_scales_out_is_there_when_the_engine_is_told_so(tmp_path):
    def front(words: str):
        return front_of(read({"NIM_RECIPE": "demo", "NIM_PASSTHROUGH_ARGS": words}, []), State(tmp_path), TOKEN)

    assert not front("").scale_out
    assert not front("--enable-scale-out --no-enable-scale-out").scale_out
    assert front("--seed 1 --enable-scale-out").scale_out
    with lab(scale_out=True) as one:
        for path in ("/v1/chat/completions/render", "/v1/completions/render", "/inference/v1/generate"):
            assert one.ask("POST", path, {}).status == 200
        assert one.ask("POST", "/inference/v1/abort_requests", {}).status == 404


def test_sagemaker():
    with lab(sagemaker=True) as one:
        assert one.get("/ping").status == 200
        assert one.ask("POST", "/invocations?x=1", {"model": "m"}).status == 200
        assert one.asked[-1].path == "/v1/chat/completions?x=1"
        one.state.ready.unlink()
        assert one.get("/ping").status == 503


def test_the_page_needs_nothing_from_elsewhere(one: Lab):
    page, script, style = one.get("/docs"), one.get("/docs/explorer.js"), one.get("/docs/explorer.css")
    assert page.headers["content-type"].startswith("text/html")
    assert script.headers["content-type"].startswith("text/javascript")
    assert style.headers["content-type"] == "text/css"
    for answer in (page, script, style):
        assert b"http://" not in answer.body and b"https://" not in answer.body
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    for inline in (b"<style", b"onclick", b"style="):
        assert inline not in page.body


def test_every_refusal_can_be_said_in_both_shapes():
    for refusal in refusals(64):
        assert json.loads(refusal.openai_body())["error"]["code"] == refusal.status
        assert json.loads(refusal.anthropic_body())["error"]["type"] == refusal.anthropic
        assert not set(refusal.message) & set("'$\\"), "nothing that nginx would read"


def test_no_path_of_ours_is_one_of_the_engine():
    paths = [route.path for route in table(sagemaker=True, scale_out=True)]
    assert len(paths) == len(set(paths))
    assert {r.path for r in ENGINE}.isdisjoint(r.path for r in OURS)

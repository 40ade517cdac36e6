"""A crawl of the real engine: what its own description names beyond our list cannot be reached through the front."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.front.routes import ENGINE, OURS, table
from entrypoint.unixhttp import get_unix
from tests.conftest import why_no_lab
from tests.e2e.server import Server
from tests.lib import lab as the_lab

pytestmark = [pytest.mark.engine]

# Of the engine, but not in its description: mounts, sockets, pages, and what other settings of it would add.
UNDESCRIBED = (
    "/docs/oauth2-redirect",
    "/redoc",
    "/metrics",
    "/metrics/",
    "/v1/realtime",
    "/collective_rpc",
    "/sleep",
    "/server_info",
    "/reset_prefix_cache",
    "/v1/load_lora_adapter",
    "/start_profile",
    "/update_weights",
    "/abort_requests",
    "/tokenizer_info",
    "/fault_tolerance/apply",
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/messages/render",
    "/inference/v1/generate",
    "/inference/v1/abort_requests",
)
ASK_INSIDE = (
    "from pathlib import Path; from entrypoint.unixhttp import get_unix; "
    "print(get_unix(Path('/tmp/nimctl/engine.sock'), '/openapi.json', timeout=60).body.decode())"
)


@pytest.fixture(scope="module")
def described(server: Server) -> dict[str, Any]:
    """The engine's description, from its own socket."""
    if why_no_lab() is None:
        text = the_lab.docker("exec", server.name, "/opt/nim/.venv/bin/python", "-c", ASK_INSIDE).stdout
        return dict(json.loads(text))
    (socket,) = Path(server.environment["HOME"]).rglob("engine.sock")
    return dict(get_unix(socket, "/openapi.json", timeout=60).json())


def ask(server: Server, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and error of an answer."""
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, {}
    except urllib.error.HTTPError as error:
        with error:
            document = json.load(error)
            return error.code, document["error"] if isinstance(document, dict) else {}


def closed(described: dict[str, Any]) -> Iterator[str]:
    listed = {route.path for route in table()}
    for path in sorted({*described["paths"], *UNDESCRIBED} - listed):
        yield re.sub(r"{[^}]*}", "x", path)


def test_the_engine_has_more_than_is_reachable_and_none_of_it_is(server: Server, described: dict[str, Any]) -> None:
    paths = list(closed(described))
    assert {"/health", "/version", "/load"} <= set(paths), "the crawl sees the engine's own routes"
    reached = []
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, error = ask(server, method, path)
            if status != 404 or error.get("message") != "There is no such route":
                reached.append((method, path, status, error))
    assert not reached


def test_every_listed_route_is_there_with_its_methods_alone(server: Server, described: dict[str, Any]) -> None:
    for route in ENGINE:
        assert route.path in described["paths"] or route.path == "/v1/embeddings", f"this engine has no {route.path}"
        path = re.sub(r"{[^}]*}", "resp_none", route.path)
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, error = ask(server, method, path)
            if method in route.methods:
                assert status != 405 and error.get("message") != "There is no such route", (method, path, error)
                assert status < 500, (method, path, error)
            else:
                assert status == 405, (method, path, status)


def test_the_description_is_what_is_reachable(server: Server, described: dict[str, Any]) -> None:
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=60) as answer:
        document = json.load(answer)
    expected = {r.path for r in OURS if r.summary} | ({r.path for r in ENGINE} & set(described["paths"]))
    assert set(document["paths"]) == expected
    text = json.dumps(document)
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert wanted <= set(document["components"]["schemas"])


def test_one_request_id_from_the_client_to_the_engine_and_back(server: Server) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Content-Type": "application/json", "X-Request-Id": "trace-me-1"}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers.get_all("X-Request-Id") == ["trace-me-1"]
        assert json.load(answer)["id"] == "chatcmpl-trace-me-1"


def test_metrics_hold_the_engines_and_ours(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/v1/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    assert "\nvllm:" in text
    for line in text.splitlines():
        assert not line or re.match(r"#|[A-Za-z_:][A-Za-z0-9_:]*(\{.*\})? ", line), line

"""What a running server tells of itself, and what it never does: the text of requests."""

import json
import re
import urllib.error
import urllib.request

import pytest

from tests.conftest import run_nimctl
from tests.e2e.server import Server
from tests.unit.entrypoint.test_entrypoint_metrics import parse

SAID = "ZEBRA-CANARY-TEXT"
TURN = [{"role": "user", "content": SAID}]
RESULT = {"type": "tool_result", "tool_use_id": SAID}
CHAT, SHORT = "/v1/chat/completions", {"model": "demo", "max_tokens": 2}
LINE = re.compile(
    r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+( \S+:\d+)?\] .*|\{.*\}"
)

REQUESTS = [
    (CHAT, {**SHORT, "messages": TURN}),
    (CHAT, {**SHORT, "messages": TURN, "temperature": SAID}),
    (CHAT, {**SHORT, "messages": [{"role": "user", "content": [{"type": SAID}]}]}),
    (CHAT, {**SHORT, "messages": TURN, "structured_outputs": {"regex": f"({SAID}"}}),
    (CHAT, {**SHORT, "messages": TURN, "response_format": {"type": "json_schema", "json_schema": {"schema": SAID}}}),
    (CHAT, {**SHORT, "messages": [{"role": "user", "content": f"{SAID} " * 20_000}]}),
    ("/v1/completions", {**SHORT, "prompt": SAID}),
    ("/v1/completions", {**SHORT, "prompt": {"a": SAID}}),
    ("/v1/messages", {**SHORT, "messages": TURN}),
    ("/v1/messages", {**SHORT, "messages": [{"role": "user", "content": [RESULT]}]}),
    ("/v1/responses", {"model": "demo", "max_output_tokens": 2, "input": SAID}),
    ("/v1/responses", {"model": "demo", "max_output_tokens": 2, "input": [{"type": SAID}]}),
    ("/tokenize", {"model": "demo", "prompt": SAID}),
]  # fmt: skip


def ask(server: Server, path: str, document: object) -> int:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SAID}", "Referer": f"http://x/{SAID}"}
    request = urllib.request.Request(f"{server.url}{path}?q={SAID}", json.dumps(document).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def test_the_text_of_requests_is_never_in_the_log_whatever_is_wrong_with_them(server: Server) -> None:
    codes = [ask(server, path, document) for path, document in REQUESTS]
    assert codes[0] == 200 and 400 in codes and not any(code >= 500 for code in codes)
    log = run_nimctl("logs", server.name, "--tail", "100000", env=server.environment).stdout
    assert "POST /v1/messages HTTP/1.1" in log, "requests are told of"
    assert SAID not in log
    strange = [line for line in log.splitlines() if not LINE.fullmatch(line)]
    assert not strange, "every line has the one shape"


def test_a_status_draws_the_start_in_time(server: Server) -> None:
    drawn = run_nimctl("status", server.name, env=server.environment).stdout
    bars = [line for line in drawn.splitlines() if "█" in line or "▏" in line]
    assert all(len(line) <= 80 for line in bars)
    assert {"engine", "imports", "weights", "compile", "warmup", "text", "tool", "image"} <= {
        line.split()[0] for line in bars
    }
    seconds = {line.split()[0]: float(line.split()[1].replace(",", "")) for line in bars if line.startswith("  ")}
    stages = run_nimctl("status", server.name, "--json", env=server.environment).document["startup"]["stages"]
    engine = next(stage for stage in stages if stage["name"] == "engine")
    assert sum(step["seconds"] for step in engine["steps"]) == pytest.approx(engine["seconds"], rel=0.1)
    assert seconds["imports"] > 1


def test_the_metrics_of_server_and_engine_are_one_text(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/v1/metrics", timeout=30) as answer:
        text = answer.read().decode()
    ours, marker, engines = text.partition("# HELP vllm:")
    assert marker and "nimctl_" not in engines
    found = parse(ours[: ours.rindex("nimctl_")] + ours[ours.rindex("nimctl_") :].split("\n")[0] + "\n")
    assert found["nimctl_ready"] == 1 and found["nimctl_engine_restarts_total"] == 0
    assert found["nimctl_start_seconds"] > found['nimctl_stage_seconds{stage="engine"}'] > 1

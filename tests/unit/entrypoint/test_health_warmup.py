"""The warm-up: which requests it sends, what it makes of refusals, and the reading that it takes for the canary."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from entrypoint.front import Front
from entrypoint.health import warmup
from entrypoint.health.warmup import HEADER, warm_up
from nimctl.core.errors import NimctlError

WELL = (200, {"choices": [{"text": "x", "message": {"content": "x"}}]})
NAN = (400, {"error": {"message": "Out of range float values are not JSON compliant"}})
NO_TEMPLATE = (400, {"error": {"message": "default chat template is no longer allowed"}})
UNSUPPORTED = (400, {"error": {"message": "prompt_logprobs is not supported"}})


def kind_of(path, body):
    """text, tool, image, base (a completion instead of a chat), or which reading is asked for."""
    if "return_token_ids" in body:
        return "all" if "prompt_logprobs" in body else "chosen" if "logprobs" in body else "chat"
    if path == "/v1/completions":
        return "base"
    return "tool" if "tools" in body else "text" if isinstance(body["messages"][0]["content"], str) else "image"


@contextmanager
def engine(answer):
    """A front whose engine answers as `answer(kind)` says; yields it and the kinds that were asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers[HEADER] == "token"
            asked.append(kind_of(self.path, body))
            status, document = answer(asked[-1])
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Front("127.0.0.1", server.server_port, "token"), asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def warmed(answers, *, images=True):
    """The probe of the baseline, the kinds that were asked, and what was said; kinds not in `answers` are well."""
    said = []
    with engine(lambda kind: answers.get(kind, WELL)) as (front, asked):
        baseline = warm_up(front, "demo", images=images, on_step=said.append, timeout=30)
    return baseline.probe, asked, said


def test_all_at_once():
    everybody = threading.Barrier(4)

    def answer(kind):
        everybody.wait(30)
        return WELL

    with engine(answer) as (front, asked):
        warm_up(front, "demo", images=True, on_step=lambda _: None, timeout=60)
    assert sorted(asked) == ["all", "image", "text", "tool"]


def test_a_model_without_eyes_is_shown_nothing():
    assert "image" not in warmed({}, images=False)[1]


def test_no_tools():
    _, _, said = warmed({"tool": (400, {"error": {"message": "no"}})})
    assert said[1:] == ["no tool call: it is answered with 400"]


def test_a_base_model():
    _, asked, _ = warmed({"text": NO_TEMPLATE, "tool": NO_TEMPLATE}, images=False)
    assert "base" in asked


@pytest.mark.parametrize("kind", ["text", "tool", "image"])
@pytest.mark.parametrize("answer", [(500, {}), (200, {"choices": []})])
def test_what_is_not_answered_fails(kind, answer):
    with pytest.raises(NimctlError, match=f"the {kind} request") as raised:
        warmed({kind: answer})
    assert raised.value.id == "warmup-failed"


def test_a_bug_in_one_of_them_is_not_waited_for(monkeypatch):
    def bug(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(warmup, "_ask_image", bug)
    with pytest.raises(TypeError, match="a bug"):
        warmed({})


@pytest.mark.parametrize("refused", [UNSUPPORTED, NAN], ids=["unsupported", "NaN"])
def test_the_most_telling_reading_that_the_engine_gives(refused):
    assert "prompt_logprobs" in warmed({})[0].document
    assert "logprobs" in warmed({"all": refused})[0].document
    assert warmed({"all": refused, "chosen": UNSUPPORTED})[0].path == "/v1/chat/completions"


def test_nothing_to_compare_can_still_be_asked():
    probe, _, _ = warmed(dict.fromkeys(("all", "chosen", "chat"), UNSUPPORTED))
    assert probe.document["messages"][0]["content"] == "Say hello."


def test_nan_wherever_one_looks_is_garbage():
    with pytest.raises(NimctlError) as raised:
        warmed({"all": NAN, "chosen": NAN})
    assert raised.value.id == "engine-answers-garbage"

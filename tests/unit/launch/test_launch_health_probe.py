"""Asking a server how far it is, over real HTTP on loopback."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nimctl.core.stages import Stage, StartupReport
from nimctl.launch.progress import ask, describe
from nimctl.launch.runtime import ContainerState, RunHandle

RUN = RunHandle("demo", "docker", "abc", "ours", "demo", "127.0.0.1", 0)


@contextmanager
def serving(answers: Mapping[str, tuple[int, object]]) -> Iterator[int]:
    """A server that answers these paths, and 404 for the rest; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {}))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


STARTING = StartupReport("starting", (Stage("weights", "running", bytes=5, total=10),), "0.1.0").to_json()
READY = StartupReport("ready", (Stage("weights", "done"),), "0.1.0").to_json()


def test_our_servers_stages() -> None:
    with serving({"/v1/health/startup": (200, STARTING)}) as port:
        answer = ask(replace(RUN, port=port))
        assert not answer.ready and answer.report is not None
        assert answer.report.current is not None and answer.report.current.bytes == 5
        assert describe(replace(RUN, port=port), ContainerState("running")) == "starting: weights"


def test_our_server_is_ready_when_its_report_says_so() -> None:
    with serving({"/v1/health/startup": (200, READY)}) as port:
        assert ask(replace(RUN, port=port)).ready
        assert describe(replace(RUN, port=port), ContainerState("running")) == "ready"


def test_nvidias_server_is_asked_for_ready_only() -> None:
    nim = replace(RUN, kind="nim")
    with serving({"/v1/health/ready": (200, {})}) as port:
        assert ask(replace(nim, port=port)).ready
        assert not ask(replace(RUN, port=port)).ready, "ours has stages, so a bare ready is somebody else's"
    with serving({"/v1/health/ready": (503, {})}) as port:
        assert not ask(replace(nim, port=port)).ready


def test_nonsense_is_no_answer() -> None:
    for body in (b"<html>", b"[]", b'{"schema": "other/1"}', {**READY, "state": "dancing"}):
        with serving({"/v1/health/startup": (200, body)}) as port:
            answer = ask(replace(RUN, port=port))
            assert not answer.ready and answer.report is None


def test_nobody_there_and_somebody_mute() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        assert ask(replace(RUN, port=port), 0.2).report is None
        mute.listen()
        assert ask(replace(RUN, port=port), 0.2).report is None
        assert describe(replace(RUN, port=port), ContainerState("exited", exit_code=137)) == "exited (137)"


def test_a_wildcard_address_is_asked_on_loopback() -> None:
    assert replace(RUN, host="0.0.0.0", port=9).url == "http://127.0.0.1:9"
    assert replace(RUN, host="::", port=9).url == "http://[::1]:9"

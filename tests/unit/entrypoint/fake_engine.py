"""A stand-in for `vllm serve` in tests: the same command line, routes and ways to fail, none of the weight.

`FAKE_ENGINE` in its environment is a folder. What it finds there decides what it does, so that a test can change its
mind while it runs: `mode` (a word, see below), `hold-chat` and `hold-stream` (while they exist, answers wait), and
`metrics` (the text of its counters; without it, they move with every answer). Modes of an engine that is green and
sick: `nan`, `repeats`, `forgets` (its log-probabilities fall). It leaves there `started` (argv and environment as JSON)
and `asked` (a line for each completion that it was asked for).
"""

import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

PLACE = Path(os.environ["FAKE_ENGINE"])
DEATHS = {
    "dies": ("RuntimeError: the checkpoint does not fit its config", 1),
    "refuses-argument": ("vllm serve: error: unrecognized arguments: --no-such-option", 2),
    "gpu-memory": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", 1),
    "exits-0": ("shutting down", 0),
    "loses-peer": ("RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1234", 1),
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_odd_lines() -> None:
    """What a log must stand: bytes that are no text, a huge line, a bar that is redrawn, tracebacks, no end."""
    head = "(Worker_TP1 pid=77) ERROR 11-22 12:39:36 [core.py:5] "
    frames = '  File "/opt/vllm/runner.py", line 12, in run\n    step()\n'
    for text in (
        b"\xff\xfe\x00 binary \x1b[31mred\x1b[0m\n",
        b"x" * 100_000 + b"\n",
        b"\r10%|#\r50%|#####\r100%|##########\n",
        f"{head}worker failed\r\n{head}Traceback (most recent call last):\r\n{head}ValueError: seven\n".encode(),
        f'Traceback (most recent call last):\n{frames}\nRuntimeError: {{"quoted": 1}}\n'.encode(),
        "INFO:     déjà vu \u2028 \u2029 \x85 end\n".encode(),
        b'{"levelname": "WARNING", "message": "from json"}\n{"not": "a record"}\n[]\nnull\n\n\n',
        b"the key is nvapi-0123456789abcdef\n",
    ):
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def mode() -> str:
    return (PLACE / "mode").read_text() if (PLACE / "mode").exists() else "serve"


def wait_while(name: str) -> None:
    for _ in range(6000):
        if not (PLACE / name).exists():
            return
        time.sleep(0.01)
    raise TimeoutError(name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "front"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, document: object, kind: str = "application/json") -> None:
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, "", "text/plain")
        elif self.path == "/v1/models":
            self.answer(
                200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.names]}
            )
        elif self.path == "/metrics":
            text = f"vllm:num_requests_running 0.0\nvllm:generation_tokens_total {self.server.answered}.0\n"
            self.answer(200, (PLACE / "metrics").read_text() if (PLACE / "metrics").exists() else text, "text/plain")
        elif self.path == "/secret-route":
            self.answer(200, "this must not be reachable", "text/plain")
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (PLACE / "asked").open("a") as file:
            file.write(json.dumps({"body": body, "headers": dict(self.headers)}) + "\n")
        if mode() == "dies-of-request":
            say("RuntimeError: the kernel could not be compiled")
            os._exit(0)
        if mode() == "bad-answers":
            self.answer(500, {"error": {"message": "no"}})
        elif body.get("stream"):
            self.stream()
        else:
            wait_while("hold-chat")
            self.server.answered += 1
            self.complete() if self.path == "/v1/completions" else self.say_hello()

    def say_hello(self) -> None:
        self.answer(200, {"choices": [{"message": {"role": "assistant", "content": "hello"}}]})

    def complete(self) -> None:
        """As vLLM answers where log-probabilities of the prompt are asked for, for better or worse."""
        if mode() == "nan":
            self.answer(400, {"error": {"message": "Out of range float values are not JSON compliant", "code": 400}})
            return
        told = -9.0 if mode() == "forgets" else -2.0
        ids = [0] * 16 if mode() == "repeats" else list(range(16))
        choice = {
            "text": "hello",
            "token_ids": ids,
            "logprobs": {"token_logprobs": [told] * 16},
            "prompt_logprobs": [None, *({"7": {"logprob": told, "rank": 1}} for _ in range(20))],
        }
        self.answer(200, {"choices": [choice]})

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk('data: {"choices":[{"delta":{"content":"first"}}]}\n\n')
        wait_while("hold-stream")
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answered = 0
    request_queue_size = 64

    def get_request(self):  # BaseHTTPRequestHandler wants an address, a Unix socket has none
        request, _ = super().get_request()
        return request, ("front", 0)


def main() -> None:
    words = sys.argv[1:]
    assert words[0] == "serve", words
    (PLACE / "started").write_text(json.dumps({"argv": words, "environ": dict(os.environ), "pid": os.getpid()}))
    say("INFO loading")
    if mode() in DEATHS:
        line, code = DEATHS[mode()]
        say(line)
        sys.exit(code)
    if mode() == "odd-lines":
        say_odd_lines()
    if mode() == "hangs":
        time.sleep(3600)
    if mode() == "ignores-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode() == "has-children":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
        (PLACE / "grandchild").write_text(str(child.pid))
    if "--headless" in words:
        time.sleep(3600)
    server = Server(words[words.index("--uds") + 1], Handler)
    start = words.index("--served-model-name") + 1
    end = next((i for i in range(start, len(words)) if words[i].startswith("-")), len(words))
    server.names = words[start:end]
    server.serve_forever()


if __name__ == "__main__":
    main()

"""What end-to-end tests need of a running demo: its address, images it can fetch, and short ways to ask."""

import base64
import http.server
import io
import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

_FORMATS = {"gif": "GIF", "jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}


def picture(kind: str) -> bytes:
    """A small picture with a red square in it, in one of the four formats of the pages."""
    image = Image.new("RGB", (84, 84), (240, 240, 240))
    image.paste((200, 30, 30), (20, 20, 64, 64))
    buffer = io.BytesIO()
    image.save(buffer, _FORMATS[kind])
    return buffer.getvalue()


@dataclass(frozen=True)
class Server:
    """A running demo at `url`; `pictures` is an address from which it can fetch images."""

    url: str
    name: str
    pictures: str
    environment: dict[str, str]

    def image(self, kind: str) -> str:
        """The URL of a picture as the server sees it."""
        return f"{self.pictures}/example.{kind}"

    def data_url(self, kind: str) -> str:
        """The picture itself, as the pages show it."""
        return f"data:image/{kind};base64,{base64.b64encode(picture(kind)).decode()}"

    def chat(self, content: Any, *, model: str = "demo", **extra: Any) -> dict[str, Any]:
        """One chat completion with one user message; raises for anything but 200."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 256, **extra}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            result: dict[str, Any] = json.load(answer)
            return result

    def stream(self, content: Any, *, model: str = "demo", **extra: Any) -> Iterator[dict[str, Any]]:
        """The deltas of a streamed completion, which must end with [DONE]."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True, **extra}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            for raw in answer:
                line = raw.decode().strip()
                if line == "data: [DONE]":
                    return
                if line.startswith("data: ") and (choices := json.loads(line[6:])["choices"]):
                    yield choices[0]["delta"]
        raise AssertionError("the stream ended without [DONE]")


@dataclass(frozen=True)
class Answer:
    """What curl received."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def curl(*arguments: str) -> Answer:
    """Run the real curl as the pages do and take its answer apart."""
    argv = ["curl", "--silent", "--show-error", "--include", "--max-time", "120", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    while head.startswith("HTTP/1.1 100"):  # curl sends Expect: 100-continue with large bodies
        head, _, body = body.partition("\n\n")
    lines = head.splitlines()
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), headers, body)


@contextmanager
def picture_server(address: str) -> Iterator[str]:
    """Serve `example.<kind>` on `address` (loopback or the lab's bridge) and yield the base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = self.path.rsplit(".", 1)[-1]
            if kind not in _FORMATS:
                self.send_error(404)
                return
            body = picture(kind)
            self.send_response(200)
            self.send_header("Content-Type", f"image/{_FORMATS[kind].lower()}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

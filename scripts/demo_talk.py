"""Start the demo model, ask it a text and an image question over its OpenAI API, show the answers, stop it."""

import argparse
import base64
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib

NIMCTL = [sys.executable, "-m", "nimctl"]


def main() -> int:
    """Run the demo; the exit code is that of the first step that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=("docker", "process"), required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--port", type=int, help="port to publish on [default: 8000, or a free one]")
    parser.add_argument("--name", default="demo", help="name of the run")
    parser.add_argument("--keep", action="store_true", help="leave the server up")
    options = parser.parse_args()

    begin = time.monotonic()
    port = options.port or free_port(8000)
    gpus = "all" if options.device == "cuda" else "none"
    start = [*NIMCTL, "run", "demo", "--name", options.name, "--runtime", options.runtime, "--gpus", gpus]
    say(f"nimctl run demo --runtime {options.runtime} --gpus {gpus} --port {port}")
    if code := subprocess.run([*start, "--port", str(port)], check=False).returncode:
        return code
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        say("a text question: What is 2 + 2?")
        show(ask(url, [{"type": "text", "text": "What is 2 + 2?"}]))
        say("an image question: What is in this image? (a red square, sent as a PNG)")
        picture = "data:image/png;base64," + base64.b64encode(red_square(56)).decode()
        image = {"type": "image_url", "image_url": {"url": picture}}
        show(ask(url, [{"type": "text", "text": "What is in this image?"}, image]))
    finally:
        if options.keep:
            say(f"left running at http://127.0.0.1:{port} ; stop it with: .venv/bin/nimctl stop {options.name}")
        else:
            subprocess.run([*NIMCTL, "stop", options.name], check=False)
    say(f"done in {time.monotonic() - begin:.0f} s. The weights are random: the path is real, the words are not.")
    return 0


def say(line: str) -> None:
    """A line of the demo itself."""
    sys.stdout.write(f"==> {line}\n")
    sys.stdout.flush()


def ask(url: str, content: list[dict[str, object]]) -> dict[str, object]:
    """One chat completion. Raises for anything but 200."""
    body = {"model": "demo", "messages": [{"role": "user", "content": content}], "max_tokens": 128}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        result: dict[str, object] = json.load(answer)
        return result


def show(answer: dict[str, object]) -> None:
    """Print what the model said, as a person would read it."""
    message = answer["choices"][0]["message"]  # type: ignore[index]
    usage = answer["usage"]
    print(f"    reasoning: {(message.get('reasoning') or '').strip()}")
    print(f"    answer:    {(message.get('content') or '').strip()}")
    print(f"    tokens:    {usage['prompt_tokens']} in, {usage['completion_tokens']} out", flush=True)  # type: ignore[index]


def free_port(wanted: int) -> int:
    """`wanted` when nothing listens there, else any free port, and said so."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", wanted)):
            return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    say(f"port {wanted} is in use; taking {port}")
    return port


def red_square(side: int) -> bytes:
    """A PNG of `side` x `side` red pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xd0\x20\x20" * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    raise SystemExit(main())

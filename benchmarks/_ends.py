"""The two ends of a serving demo: SIGTERM in the middle of a stream, SIGKILL for its engine. Not a benchmark itself."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks._container import Host, await_exit, process_of
from benchmarks._requests import CHAT, REQUEST_SECONDS, ask, chat, stream

READY = "/v1/health/ready"
EXIT_SECONDS = 90  # ends a benchmark that hangs; no bar depends on it


@dataclass(frozen=True)
class Ended:
    """How one start ended on SIGTERM. `refusal` is the status of a new request while the stream ran (None: nobody
    answered); `exit_s` counts from the signal to Docker's FinishedAt, `after_stream_s` from the stream's end.
    """

    done: bool
    tokens: int
    refused: bool
    refusal: int | None
    exit_code: int
    exit_s: float
    after_stream_s: float


@dataclass(frozen=True)
class Killed:
    """How a container ended whose engine was killed."""

    exit_code: int
    exit_s: float
    error_id: str | None
    cause: str | None


def end_by_sigterm(host: Host, name: str, port: int) -> tuple[float, Ended]:
    """SIGTERM in the middle of a stream; the time of the signal and what came of it."""
    with ThreadPoolExecutor(1) as pool:
        flowing = threading.Event()
        running = pool.submit(stream, port, flowing)
        flowing.wait(REQUEST_SECONDS)
        asked = time.time()
        host.docker("kill", "--signal", "TERM", name)
        deadline = time.monotonic() + REQUEST_SECONDS
        while ask(port, READY, seconds=REQUEST_SECONDS).status == 200 and time.monotonic() < deadline:
            time.sleep(0.005)
        refusal = ask(port, CHAT, chat("Say hello."), seconds=REQUEST_SECONDS).status
        streaming = not running.done()
        state = await_exit(host, name, EXIT_SECONDS)
        streamed = running.result()
    refused = streaming and refusal in (503, None)
    exit_s, after_stream_s = state.finished - asked, state.finished - streamed.ended
    ended = Ended(streamed.done, streamed.tokens, refused, refusal, state.exit_code, exit_s, after_stream_s)
    return asked, ended


def end_by_kill(host: Host, name: str) -> Killed:
    """SIGKILL for the engine; what the container makes of it."""
    engine = process_of(host, name, "vllm serve")
    asked = time.time()
    os.kill(engine, signal.SIGKILL)
    state = await_exit(host, name, EXIT_SECONDS)
    last = host.docker("logs", "--tail", "200", name).splitlines()[-1]  # stdout alone
    document = json.loads(last) if last.startswith("{") else {}
    error = document.get("error") or {}
    return Killed(state.exit_code, state.finished - asked, error.get("id"), error.get("cause"))

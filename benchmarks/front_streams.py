"""What the front costs a stream, and what it bears: nginx as it is rendered, before a server made of vLLM's parts.

    saturation  8 streams of 4,000 chunks as fast as they go. Bar: 0.95x the chunks a second of the engine's own socket
    added       16 streams at 50 chunks a second. Bar: 0.3 ms more at the median, 1 ms at the 99th percentile
    crowd       1,000 idle streams and 50 that flow. Bar: no failure, no chunk lost
    pictures    eight requests of 10 MB at once. Bar: all arrive whole
    slow        a reader that does not read while its stream has 400,000 chunks. Bar: front and engine do not grow by
                more than 32 MiB

Each round runs directly and through the front, in turn; figures are medians over the rounds. Client, front and server
share the machine.

    scripts/bench front_streams [--rounds 5]
"""

import argparse
import asyncio
import base64
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from entrypoint.front import command, find_nginx, front_of, prepare
from entrypoint.health.warmup import picture
from entrypoint.observability.report import Report
from entrypoint.processes.child import descendants
from entrypoint.settings import read
from entrypoint.state import open_state
from nimctl import __version__
from tests.unit.entrypoint.service import free_port

SECONDS = 120.0
MIB = 2**20
_MADE = re.compile(rb'"made":(\d+)')
_FRAME = re.compile(rb"\r\n[0-9a-f]+\r\n")  # of chunked transfer: nginx cuts where its buffers end
_PATH = b"/v1/chat/completions"
_BODY = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hello"}]}).encode()


@dataclass(frozen=True)
class Address:
    """A server: a Unix socket, or a port of the loopback address."""

    socket: str | None
    port: int = 0

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it."""
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket, limit=2**20)
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)


@dataclass(frozen=True)
class Pair:
    """The engine's own socket, the front before it, and the processes of either."""

    direct: Address
    front: Address
    engine_pid: int
    front_pid: int


@contextmanager
def pair() -> Iterator[Pair]:
    """Engine and front, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-") as folder:
        place = Path(folder)
        environ = {"NIM_RECIPE": "demo", "NIM_SERVER_HOST": "127.0.0.1", "NIM_SERVER_PORT": str(free_port())}
        settings = read({**environ, "NIMCTL_STATE_DIR": str(place / "state"), "NIM_CACHE_PATH": folder})
        state = open_state(settings.state_dir)
        front = front_of(settings, state, "bench-token")
        prepare(front, state, cpus=os.cpu_count() or 1, log_level="ERROR")
        argv = [sys.executable, "-m", "benchmarks._stream_engine", str(state.engine_socket)]
        with (
            subprocess.Popen(argv) as engine,
            subprocess.Popen(command(find_nginx(os.environ.get("PATH")), state)) as nginx,
        ):
            try:
                report = Report(state, __version__)
                report.ready()
                addresses = Address(str(state.engine_socket)), Address(None, settings.port)
                for address in addresses:
                    asyncio.run(_await(address))
                yield Pair(*addresses, engine.pid, nginx.pid)
            finally:
                nginx.terminate()
                engine.terminate()


async def _await(address: Address) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if await stream(address, b"1 0"):
                return
        except (OSError, AssertionError):
            await asyncio.sleep(0.1)
    raise TimeoutError(str(address))


def request(kind: bytes, body: bytes = _BODY) -> bytes:
    """A POST of the chat route that asks the server for this kind of stream."""
    head = b"POST %s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\n" % _PATH
    return head + b"X-Stream: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body


async def stream(address: Address, kind: bytes) -> list[tuple[int, int]]:
    """When each chunk was made and when it was here, in nanoseconds; the stream must end with [DONE]."""
    reader, writer = await address.open()
    try:
        writer.write(request(kind))
        rest, seen, last = b"", [], b""
        while data := await reader.read(2**18):
            now = time.monotonic_ns()
            text = _FRAME.sub(b"", rest + data)
            cut = text.rfind(b"\n\n") + 2
            seen += [(int(made), now) for made in _MADE.findall(text[:cut])]
            rest, last = text[cut:], (last + data)[-128:]
        assert b"[DONE]" in last, last
        return seen
    finally:
        writer.close()


async def many(address: Address, kind: bytes, count: int) -> tuple[float, list[list[tuple[int, int]]]]:
    """`count` streams at once: seconds in all, and their chunks."""
    began = time.perf_counter()
    streams = await asyncio.wait_for(asyncio.gather(*(stream(address, kind) for _ in range(count))), SECONDS)
    return time.perf_counter() - began, streams


def saturation(servers: Pair, rounds: int) -> bool:
    """Chunks a second through the front, as a share of those from the socket."""
    rates: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        found = []
        for address in (servers.direct, servers.front):
            seconds, streams = asyncio.run(many(address, b"4000 0", 8))
            assert [len(chunks) for chunks in streams] == [4000] * 8
            found.append(8 * 4000 / seconds)
        rates.append((found[0], found[1]))
    ratios = [front / direct for direct, front in rates[1:]]  # the first warms up
    direct, front = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    ratio = statistics.median(ratios)
    text = f"{ratio:.3f}x ({front:,.0f} against {direct:,.0f} chunks/s, range {min(ratios):.3f}-{max(ratios):.3f})"
    return tell("saturation", text, ratio >= 0.95, "0.95x")


def added(servers: Pair, rounds: int) -> bool:
    """Milliseconds that a chunk takes longer through the front."""
    more: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        found = []
        for address in (servers.direct, servers.front):
            _, streams = asyncio.run(many(address, b"250 50", 16))
            late = sorted((here - made) / 1e6 for chunks in streams for made, here in chunks)
            found.append((late[len(late) // 2], late[len(late) * 99 // 100]))
        (d50, d99), (f50, f99) = found
        more.append((f50 - d50, f99 - d99))
    p50, p99 = (statistics.median(column) for column in zip(*more[1:], strict=True))
    return tell("added", f"{p50:.3f} ms at p50, {p99:.3f} ms at p99", p50 <= 0.3 and p99 <= 1.0, "0.3 and 1 ms")


async def _crowd(address: Address) -> tuple[int, int]:
    idle = []
    for _ in range(1000):
        reader, writer = await address.open()
        writer.write(request(b"idle"))
        idle.append((reader, writer))
    for reader, _ in idle:
        await asyncio.wait_for(reader.readuntil(b"}\n\n"), SECONDS)
    _, streams = await many(address, b"200 20", 50)
    alive = sum(not reader.at_eof() for reader, _ in idle)
    for _, writer in idle:
        writer.close()
    return alive, sum(len(chunks) for chunks in streams)


def crowd(servers: Pair) -> bool:
    """A thousand connections that say nothing do not hinder fifty that flow."""
    alive, chunks = asyncio.run(_crowd(servers.front))
    text = f"{alive} of 1000 idle streams open, {chunks} of {50 * 200} chunks of the others"
    return tell("crowd", text, (alive, chunks) == (1000, 50 * 200), "all")


async def _pictures(address: Address) -> list[int]:
    url = "data:image/png;base64," + base64.b64encode(picture() + bytes(10 * MIB * 3 // 4)).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": content}]}).encode()

    async def one() -> int:
        reader, writer = await address.open()
        writer.write(request(b"size", body))
        answer = await asyncio.wait_for(reader.read(-1), SECONDS)
        writer.close()
        return int(b'"size": %d' % len(body) in answer)

    return await asyncio.gather(*(one() for _ in range(8)))


def pictures(servers: Pair) -> bool:
    """Large requests arrive whole."""
    whole = sum(asyncio.run(_pictures(servers.front)))
    return tell("pictures", f"{whole} of 8 requests of 10 MB arrived whole", whole == 8, "all")


async def _slow(servers: Pair) -> tuple[int, int]:
    before = [rss(servers.front_pid), rss(servers.engine_pid)]
    reader, writer = await servers.front.open()
    writer.write(request(b"400000 0"))
    await asyncio.wait_for(reader.readuntil(b"}\n\n"), SECONDS)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    most = [0, 0]
    for _ in range(40):
        await asyncio.sleep(0.25)
        now = [rss(servers.front_pid), rss(servers.engine_pid)]
        most = [max(m, n - b) for m, n, b in zip(most, now, before, strict=True)]
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await asyncio.wait_for(reader.read(MIB), SECONDS)) > 0, "it goes on where it was left"
    assert not reader.at_eof()
    writer.close()
    return most[0], most[1]


def slow(servers: Pair) -> bool:
    """A reader that does not read costs little memory anywhere."""
    front, engine = asyncio.run(_slow(servers))
    text = f"the front grew by {front / MIB:.1f} MiB, the engine by {engine / MIB:.1f} MiB"
    return tell("slow", text, max(front, engine) <= 32 * MIB, "32 MiB")


def rss(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    total = 0
    for one in (pid, *descendants(pid)):
        total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * resource.getpagesize()
    return total


def tell(name: str, text: str, met: bool, bar: str) -> bool:
    """One line for people, one of JSON."""
    print(f"{name}: {text}; bar {bar}: {'met' if met else 'MISSED'}")
    print(json.dumps({"name": name, "figure": text, "bar": bar, "met": met, "load": os.getloadavg()[0]}), flush=True)
    return met


def main(arguments: Sequence[str] | None = None) -> int:
    """All five; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with pair() as servers:
        results = [
            saturation(servers, rounds),
            added(servers, rounds),
            crowd(servers),
            pictures(servers),
            slow(servers),
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

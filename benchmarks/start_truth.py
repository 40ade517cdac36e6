"""Whether the container's health tells the truth: live at once, ready when it works, and a clean end.

Starts the real demo container N times on the lab's host without GPU. One cache for all: the first start is cold.

    live     seconds from Docker's State.StartedAt to the first 200, looked for 200 times a second from Docker's start
             event on. Bar: every start <= 0.3 s, and before the weights. Peer: StartedAt to FinishedAt of
             `python -c ''` in the same image, run right before each start
    ready    looked at 20 times a second; at the first 200 a text and an image request are sent.
             Bar: no 200 before both work, and nothing but 200 from then until the stop
    SIGTERM  while a completion of 100 tokens streams. Bar: [DONE], new requests refused, exit code 143 within the drain
             time (30 s, the default)
    kill -9  of `vllm serve`, in one more start. Bar: exit code not 0, the log's last line names the error

    scripts/bench start_truth [--starts 10]
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from benchmarks._container import (
    BenchmarkError,
    Host,
    bare_seconds,
    free_port,
    inspect,
    lab_host,
    named,
    process_began,
    start_demo,
)  # fmt: skip
from benchmarks._ends import READY, Ended, Killed, end_by_kill, end_by_sigterm
from benchmarks._requests import REQUEST_SECONDS, START_SECONDS, Proof, ask, prove
from benchmarks._sampling import Sample, Sampler, rate

LIVE, STARTUP = "/v1/health/live", "/v1/health/startup"
LIVE_SECONDS = 0.3
DRAIN_SECONDS = 30  # the default of NIM_DRAIN_SECONDS: docs/05-container.md


@dataclass(frozen=True)
class Live:
    """Seconds to the first 200: `live_s` since Docker's StartedAt, which Docker notes up to 0.1 s after the exec;
    `since_fork_s` (to 0.01 s) since the first process was made, before the container was even put together.
    """

    bare_s: float
    live_s: float
    since_fork_s: float
    looks_per_s: float
    before_weights: bool


@dataclass(frozen=True)
class Ready:
    """`untrue` counts the 200s until both requests work, `dips` the other answers from then until the stop."""

    ready_s: float
    untrue: int
    dips: int
    looks_per_s: float


@dataclass(frozen=True)
class Start:
    """One start from its first to its last moment."""

    live: Live
    ready: Ready
    ended: Ended


@dataclass(frozen=True)
class Claim:
    """A bar, whether it was met, and the figures for people."""

    name: str
    met: bool
    figures: str


@contextmanager
def watched(port: int) -> Iterator[tuple[Sampler, Sampler]]:
    """Both samplers, looking already."""
    with (
        Sampler(port, LIVE, 250, threads=25, until_ok=True) as live,  # above the 200 Hz that are promised
        Sampler(port, READY, 20, threads=20) as ready,
    ):
        yield live, ready


def weights_stage(port: int, live: Sampler) -> str:
    """State of the weights stage right after the first live 200."""
    if live.first_ok(START_SECONDS) is None:
        return "never live"
    document = ask(port, STARTUP, seconds=REQUEST_SECONDS).document or {}
    return next((s["state"] for s in document.get("stages", ()) if s["name"] == "weights"), "not told")


def await_proof(host: Host, name: str, proof: Future[Proof]) -> Proof:
    """The result of `prove`; BenchmarkError when the container ends before."""
    while not proof.done():
        if (state := inspect(host, name)).status != "running":
            log = host.docker("logs", "--tail", "20", name)
            raise BenchmarkError(f"{name} ended with {state.exit_code}:\n{log}")
        time.sleep(0.5)
    return proof.result()


def one_start(host: Host, number: int) -> Start:
    """Start, watch, ask, end."""
    bare_s = bare_seconds(host, f"bench-{os.getpid()}-bare-{number}")
    port = free_port()
    with (
        named(host, f"bench-{os.getpid()}-{number}") as name,
        ThreadPoolExecutor(3) as pool,
    ):
        run = start_demo(host, pool, name, port)
        with watched(port) as (live, ready):
            weights, proving = pool.submit(weights_stage, port, live), pool.submit(prove, port, ready)
            run.result()
            state = inspect(host, name)
            forked = process_began(state.pid)
            proof = await_proof(host, name, proving)
            stopped_at, ended = end_by_sigterm(host, name, port)
            live_at = next(look.at for look in live.samples if look.status == 200)
            hertz, early = (
                rate(live.samples, live.samples[0].asked, live_at),
                weights.result() in ("pending", "running"),
            )
            is_live = Live(bare_s, live_at - state.started, live_at - forked, hertz, early)
            return Start(is_live, judge_ready(ready.samples, proof, state.started, stopped_at), ended)


def judge_ready(looks: Sequence[Sample], proof: Proof, started: float, stopped: float) -> Ready:
    """Which of the looks at ready were untrue."""
    untrue = [s for s in looks if s.status == 200 and s.at <= proof.asked] if proof.attempts > 1 else []
    dips = [s for s in looks if s.status != 200 and proof.ready_at < s.asked and s.at < stopped]
    return Ready(proof.ready_at - started, len(untrue), len(dips), rate(looks, started, stopped))


def killed_start(host: Host) -> Killed:
    """One more start, whose engine is killed once it is ready."""
    with named(host, f"bench-{os.getpid()}-killed") as name:
        once = ("--env", "NIM_ENGINE_RESTARTS=0")  # what a restart is worth: serving_ends
        host.nimctl("run", "demo", "--detach", "--name", name, "--port", str(free_port()), *once)
        host.nimctl("status", name, "--wait", seconds=START_SECONDS)
        return end_by_kill(host, name)


def middle(values: Sequence[float]) -> str:
    """Median and largest, for people."""
    return f"median {statistics.median(values):.3f} s, max {max(values):.3f} s"


def claims(starts: Sequence[Start], killed: Killed) -> list[Claim]:
    """Each bar, whether it was met, and the figures behind it in a sentence."""
    n, live, ready, ended = len(starts), [s.live for s in starts], [s.ready for s in starts], [s.ended for s in starts]
    bare = statistics.median(x.bare_s for x in live)  # a few ms: medians, because a pair's own ratio is noise
    ratio = statistics.median(x.live_s for x in live) / bare
    early, cut = sum(x.before_weights for x in live), sum(x.untrue for x in ready)
    dips = sum(x.dips for x in ready)
    clean = sum(x.done and x.refused and x.exit_code == 143 and x.exit_s <= DRAIN_SECONDS for x in ended)
    return [
        Claim(
            f"live <= {LIVE_SECONDS} s after the container's start, before the weights",
            early == n and max(x.live_s for x in live) <= LIVE_SECONDS,
            f"{middle([x.live_s for x in live])}; {ratio:.1f}x of `python -c ''` ({bare:.3f} s); "
            f"before the weights {early}/{n}; "
            f"since the process's fork {middle([x.since_fork_s for x in live])}",
        ),
        Claim(
            "no ready=200 before requests work, none missing after",
            cut == dips == 0,
            f"{cut} untrue, {dips} missing in {n} starts; ready after {middle([x.ready_s for x in ready])}, "
            f"cold {ready[0].ready_s:.1f} s",
        ),
        Claim(
            f"SIGTERM: the stream ends with [DONE], new requests are refused, exit 143 within {DRAIN_SECONDS} s",
            clean == n,
            f"{clean}/{n}; exit after {middle([x.exit_s for x in ended])}; "
            f"after the end of the stream ({ended[0].tokens} tokens) {middle([x.after_stream_s for x in ended])}",
        ),
        Claim(
            "kill -9 of the engine: not exit 0, and a named cause",
            killed.exit_code != 0 and bool(killed.error_id and killed.cause),
            f"exit {killed.exit_code} after {killed.exit_s:.3f} s, {killed.error_id}: {killed.cause}",
        ),
    ]


def measure(count: int) -> bool:
    """All starts; prints a line a claim and one JSON line. True when every bar was met."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-") as folder, lab_host(Path(folder)) as host:
        starts = []
        for number in range(1, count + 1):
            starts.append(one_start(host, number))
            print(f"start {number}/{count}: {asdict(starts[-1])}", file=sys.stderr, flush=True)
        killed = killed_start(host)
        docker = host.docker("version", "--format", "{{.Server.Version}}").strip()
    judged = claims(starts, killed)
    for claim in judged:
        print(f"{claim.name}: {claim.figures}: {'met' if claim.met else 'MISSED'}")
    details = {"starts": [asdict(start) for start in starts], "killed": asdict(killed)}
    about = {"name": "start_truth", "docker": docker, "cpus": os.cpu_count(), "load_before": load}
    print(json.dumps({**about, "claims": [asdict(claim) for claim in judged], **details}))
    return all(claim.met for claim in judged)


def stop_cleanly(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Measure every bar; exit 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    starts = max(1, parser.parse_args().starts)
    signal.signal(signal.SIGTERM, stop_cleanly)  # whatever ends us, the containers go first
    try:
        return 0 if measure(starts) else 1
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

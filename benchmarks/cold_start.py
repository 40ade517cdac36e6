"""Whether a start with us is never slower than bare `vllm serve`, and much faster the second time.

Starts the demo in fresh containers of one image on the lab's host without GPU, in turn:

    bare     `vllm serve` of the same checkpoint with what it needs to work: --enforce-eager and 1 GiB for its context
    tuned    `vllm serve` with every argument and variable of our recipe: what is ours beside the settings
    cold     `nimctl run demo` with an empty cache folder, weights included
    warm     the same once more, with the cache folder that `cold` left

Each is looked at 20 times a second from Docker's start event on. `engine` is when the engine first says that it is
healthy (ours: when the stage `engine` is done), `answered` when a text and an image request have been answered, one
after the other, sent at the first 200 of ready (bare: of /health). All in seconds from Docker's State.StartedAt.

`cpu` is the processor time that it took until then, which tells more on a machine with other work.

    answered, cold against bare <= 1.00, warm against bare <= 0.65; engine, cold against bare and tuned <= 1.03
    the image request after ready, cold and warm <= 0.5 s

    scripts/bench cold_start [--rounds 3] [--kinds bare,tuned,cold,warm]
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from benchmarks._container import BenchmarkError, Host, free_port, inspect, lab_host, named, start_demo
from benchmarks._requests import CHAT, QUESTIONS, START_SECONDS, ask, chat
from nimctl.core.demo.checkpoint import write_checkpoint
from nimctl.core.engine_options import options_of
from nimctl.core.recipes import load

KINDS = ("bare", "tuned", "cold", "warm")
COLD_BAR, WARM_BAR, ENGINE_BAR, IMAGE_SECONDS = 1.0, 0.65, 1.03, 0.5
_PERIOD = 0.05
# Without --enforce-eager the demo compiles for minutes on two cores, and without the variable vLLM refuses to start
# unless 92 % of the machine is free.
_NEEDED = ["--enforce-eager"]
_NEEDED_ENV = {"VLLM_CPU_KVCACHE_SPACE": "1"}
_ANSWER_SECONDS = 300.0


@dataclass(frozen=True)
class Start:
    """One start, in seconds from Docker's StartedAt; `text_s` and `image_s` are the two requests themselves.

    `cpu_s` is what all processes of the container had used of the processors when the engine stood.
    """

    kind: str
    engine_s: float
    cpu_s: float
    ready_s: float
    answered_s: float
    text_s: float
    image_s: float
    stages: Mapping[str, float]


def bare_words(kind: str) -> tuple[list[str], dict[str, str]]:
    """What `vllm serve` gets beside the checkpoint's folder: arguments and variables."""
    if kind == "bare":
        return _NEEDED, _NEEDED_ENV
    engine = load("demo").engine.on("cpu")
    return [word for option in options_of(engine.args) for word in option.words], dict(engine.env)


def start_bare(host: Host, name: str, port: int, weights: Path, kind: str) -> None:
    """Start `vllm serve` in a container of our image, as its user, with nothing of ours running."""
    words, env = bare_words(kind)
    variables = [word for item in env.items() for word in ("--env", "=".join(item))]
    mount = f"type=bind,src={weights},dst=/weights,readonly"
    docker = [
        "run",
        "--detach",
        "--name",
        name,
        "--publish",
        f"127.0.0.1:{port}:8000",
        "--mount",
        mount,
        "--shm-size=1g",
    ]
    serve = ["--entrypoint", "/opt/nim/.venv/bin/vllm", host.image, "serve", "/weights", "--served-model-name", "demo"]
    host.docker(*docker, *variables, *serve, *words)


def await_ok(host: Host, name: str, port: int, path: str, *, done: str | None = None) -> float:
    """Wall-clock time of the first 200 of `path`, with `done` of its first that says that this stage is done."""
    deadline = time.monotonic() + START_SECONDS
    looks = 0
    while time.monotonic() < deadline:
        answer = ask(port, path, seconds=5.0)
        if answer.status == 200 and (done is None or stages_of(answer.document).get(done) is not None):
            return time.time()
        looks += 1
        if looks % 40 == 0 and (state := inspect(host, name)).status != "running":
            log = host.docker("logs", "--tail", "20", name)
            raise BenchmarkError(f"{name} ended with {state.exit_code}:\n{log}")
        time.sleep(_PERIOD)
    raise BenchmarkError(f"{name} never answered {path}")


def cpu_seconds(host: Host, name: str) -> float:
    """Processor time of the container's control group so far; 0.0 where the kernel's files are not where they were.

    Version 1: cpuacct.usage in nanoseconds; version 2: usage_usec of cpu.stat.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{inspect(host, name).pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                text = (Path("/sys/fs/cgroup/cpuacct") / group.lstrip("/") / "cpuacct.usage").read_text("ascii")
                return round(int(text) / 1e9, 2)
            if not controllers and (stat := Path("/sys/fs/cgroup") / group.lstrip("/") / "cpu.stat").exists():
                return round(int(stat.read_text("ascii").split("usage_usec ")[1].split()[0]) / 1e6, 2)
    return 0.0


def stages_of(document: object) -> dict[str, float]:
    """The seconds of each stage that is done, of a body of /v1/health/startup."""
    stages = document.get("stages", ()) if isinstance(document, dict) else ()
    return {s["name"]: float(s.get("seconds") or 0.0) for s in stages if s.get("state") == "done"}


def answer(port: int, question: object) -> float:
    """Seconds until a request about `question` is answered. Raises BenchmarkError unless it is, with 200."""
    began = time.perf_counter()
    got = ask(port, CHAT, chat(question), seconds=_ANSWER_SECONDS)
    if got.status != 200 or not (got.document or {}).get("choices"):
        raise BenchmarkError(f"a request was answered with {got.status}: {got.document}")
    return time.perf_counter() - began


def one_start(host: Host, kind: str, number: int, weights: Path, cache: Path) -> Start:
    """Start, wait, ask, remove."""
    ours = kind in ("cold", "warm")
    with named(host, f"bench-{os.getpid()}-{kind}-{number}") as name, ThreadPoolExecutor(1) as pool:
        port = free_port()
        if ours:
            mine = Host({**host.environ, "NIMCTL_CACHE": str(cache)}, host.image)
            run = start_demo(mine, pool, name, port)
            engine_at = await_ok(host, name, port, "/v1/health/startup", done="engine")
            cpu_s = cpu_seconds(host, name)
            ready_at = await_ok(host, name, port, "/v1/health/ready")
        else:
            start_bare(host, name, port, weights, kind)
            ready_at = engine_at = await_ok(host, name, port, "/health")
            cpu_s = cpu_seconds(host, name)
        text_s, image_s = answer(port, QUESTIONS[0]), answer(port, QUESTIONS[1])
        answered_at = time.time()
        began = inspect(host, name).started
        stages = stages_of(ask(port, "/v1/health/startup", seconds=5.0).document) if ours else {}
        if ours:
            run.result()
        engine_s, ready_s, answered_s = (round(at - began, 2) for at in (engine_at, ready_at, answered_at))
        return Start(kind, engine_s, cpu_s, ready_s, answered_s, round(text_s, 3), round(image_s, 3), stages)


def measure_rounds(host: Host, rounds: int, kinds: Sequence[str], home: Path) -> list[Start]:
    """All kinds in turn, `rounds` times; every other round the other way around, as far as `warm` allows."""
    weights = home / "weights"
    weights.mkdir(mode=0o755)
    write_checkpoint(weights)
    starts = []
    for number in range(1, rounds + 1):
        cache = home / f"cache-{number}"
        order = [k for k in KINDS if k in kinds]
        if number % 2 == 0:
            order = [k for k in ("cold", "warm", "tuned", "bare") if k in kinds]
        for kind in order:
            starts.append(one_start(host, kind, number, weights, cache))
            print(f"round {number}/{rounds}: {asdict(starts[-1])}", file=sys.stderr, flush=True)
    return starts


@dataclass(frozen=True)
class Claim:
    """A bar, whether it was met, and the figures for people."""

    name: str
    met: bool
    figures: str


def compared(starts: Sequence[Start], field: str, ours: str, peer: str, bar: float) -> Claim | None:
    """The median of the per-round ratios against its bar; None where one of both was not measured."""
    mine = [getattr(s, field) for s in starts if s.kind == ours]
    theirs = [getattr(s, field) for s in starts if s.kind == peer]
    if not mine or not theirs or not all(theirs):
        return None
    ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
    ratio = statistics.median(ratios)
    what = f"{field.removesuffix('_s')}, {ours} against {peer} <= {bar:.2f}"
    medians = f"{statistics.median(mine):.1f} s against {statistics.median(theirs):.1f} s"
    return Claim(what, ratio <= bar, f"{ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), {medians}")


def claims(starts: Sequence[Start]) -> list[Claim]:
    """Each bar of the head of this file that was measured."""
    judged = [
        compared(starts, "answered_s", "cold", "bare", COLD_BAR),
        compared(starts, "answered_s", "warm", "bare", WARM_BAR),
        compared(starts, "answered_s", "cold", "tuned", COLD_BAR),
        compared(starts, "answered_s", "warm", "tuned", COLD_BAR),
        compared(starts, "engine_s", "cold", "bare", ENGINE_BAR),
        compared(starts, "engine_s", "cold", "tuned", ENGINE_BAR),
        compared(starts, "cpu_s", "cold", "tuned", ENGINE_BAR),
        compared(starts, "cpu_s", "warm", "tuned", ENGINE_BAR),
    ]
    for kind in ("cold", "warm"):
        if images := [s.image_s for s in starts if s.kind == kind]:
            figures = f"median {statistics.median(images):.3f} s, max {max(images):.3f} s"
            judged.append(
                Claim(f"first image after ready, {kind} <= {IMAGE_SECONDS} s", max(images) <= IMAGE_SECONDS, figures)
            )
    return [claim for claim in judged if claim is not None]


def measure(rounds: int, kinds: Sequence[str]) -> bool:
    """All starts; prints a line a claim and one JSON line. True when every bar was met."""
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-") as folder, lab_host(Path(folder)) as host:
        Path(folder).chmod(0o755)
        starts = measure_rounds(host, rounds, kinds, Path(folder))
        docker = host.docker("version", "--format", "{{.Server.Version}}").strip()
    judged = claims(starts)
    for claim in judged:
        print(f"{claim.name}: {claim.figures}: {'met' if claim.met else 'MISSED'}")
    about = {"name": "cold_start", "docker": docker, "cpus": os.cpu_count(), "load_before": load_before}
    print(json.dumps({**about, "claims": [asdict(c) for c in judged], "starts": [asdict(s) for s in starts]}))
    return all(claim.met for claim in judged)


def stop_cleanly(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Measure every bar; exit 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of them, with commas")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop_cleanly)  # whatever ends us, the containers go first
    try:
        return 0 if measure(max(1, options.rounds), options.kinds.split(",")) else 1
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Whether a bundle brings a model to a host without any way out, and whether a changed bit is ever missed.

The bundle is of the demo: its checkpoint (103 MB) with a small image of eight layers in the lab's registry, or with
--real with the CPU image (2.8 GB), which was built here and never pushed.

    cut      `nimctl bundle create` is killed (SIGKILL) halfway, and run again: bytes moved twice; bar: 4 blocks
    verify   a whole bundle is whole; GB/s
    flips    200 random single bits over all files, the lists of sums and bundle.json included: each must be found
    sealed   load, and with --real `run --locked` and a completion, in a network namespace without routes, on a daemon
             of its own in there: packets out and connects to other hosts (strace of nimctl and all it starts); bar: 0
    peer     `docker save -o` and `cp -r` onto the medium, `docker load -i` and `cp -r` from it, which prove nothing;
             against create and load

    scripts/bench bundle_offline [--flips 200] [--pairs 3]
    scripts/bench bundle_offline --real --flips 0 [--pairs 1]       with pairs the peer alone: 2.8 GB four times
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pairs import alternate
from tests.conftest import private_environment
from tests.lib import lab
from tests.lib.lab.paths import paths
from tests.lib.sealed_docker import SealedDocker, sealed_docker

SMALL = "open/bundle-bench"
LAYERS = 8
LAYER = 6_000_000
BLOCK = 4 * 2**20
TWICE_BAR = 4 * BLOCK  # a block of each thread
SPEED_BAR = 1.5
SECONDS = 580.0
_NETWORK = re.compile(r"sa_family=AF_(?!UNIX|NETLINK)")
_LOCAL = re.compile(r'sa_family=AF_(UNIX|NETLINK)|inet_addr\("(127\.|0\.0\.0\.0)|inet_pton\(AF_INET6, "(::1|::)"')


@dataclass
class Figures:
    """What was measured, and the bars that were missed."""

    found: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def judge(self, name: str, value: Any, *, met: bool, bar: str) -> None:
        """Note one figure and tell it."""
        self.found[name] = value
        if not met:
            self.missed.append(name)
        print(f"{name}: {value} (bar {bar}): {'met' if met else 'MISSED'}", flush=True)


def nimctl(*words: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "nimctl", *map(str, words)]


def run(argv: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(argv, env=dict(env), capture_output=True, text=True, timeout=SECONDS, check=False)


def must(argv: list[str], env: Mapping[str, str]) -> str:
    """Run to the end, which must be good; its output."""
    done = run(argv, env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr[-2000:]}")
    return done.stdout


def small_image() -> str:
    """Push the small image; its name. Random layers, as nothing of them compresses."""
    dice = random.Random(1)
    info = lab.registry_info()
    repository = f"{SMALL}-{os.getpid()}"
    files = {f"layer{n}": dice.randbytes(LAYER) for n in range(LAYERS)}
    lab.push_image(f"{repository}:1", files)
    return f"{info.address}/{repository}:1"


def size_of(folder: Path) -> int:
    """Bytes of all files below, as far as they are written."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except OSError:
                continue
    return total


def cut(folder: Path, words: list[str], env: Mapping[str, str], at: int, figures: Figures) -> None:
    """Kill the packing once `at` bytes lie there, finish it, and count what was moved twice."""
    process = subprocess.Popen(words, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + SECONDS
    while size_of(folder) < at and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = size_of(folder)
    document = json.loads(must([*words, "--json"], env))
    twice = before + int(document["moved"]) - size_of(folder)
    figures.found["killed_at"] = f"{before} of {size_of(folder)} bytes"
    figures.judge("bytes moved twice", max(0, twice), met=twice <= TWICE_BAR, bar=f"<= {TWICE_BAR}")


def flips(folder: Path, count: int, env: Mapping[str, str], figures: Figures) -> None:
    """Change one bit at a time; files in turn, so that the small ones are not passed by."""
    dice = random.Random(2)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = named = 0
    for number in range(count):
        path = files[number % len(files)]
        place, bit = dice.randrange(path.stat().st_size), 1 << dice.randrange(8)
        _flip(path, place, bit)
        done = run(nimctl("bundle", "verify", folder, "--json"), env)
        _flip(path, place, bit)
        error = json.loads(done.stdout).get("error") or {}
        found += done.returncode == 9 and error.get("id") in ("bundle-damaged", "bundle-invalid")
        named += path.relative_to(folder).as_posix() in json.dumps(error)
    figures.judge("flipped bits found", f"{found} of {count}", met=found == count, bar="all")
    figures.judge("files named", f"{named} of {count}", met=named == count, bar="all")
    must(nimctl("bundle", "verify", folder, "--json"), env)


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def sealed(folder: Path, env: Mapping[str, str], figures: Figures, *, real: bool) -> None:
    """Load, start and ask where no packet can leave."""
    with tempfile.TemporaryDirectory(prefix="sealed-", dir="/var/tmp", ignore_cleanup_errors=True) as place:
        home = Path(place) / "home"
        home.mkdir()
        with sealed_docker(Path(place)) as host:
            inside = {**private_environment(env, home), "DOCKER_HOST": f"unix://{host.socket}", "NIMCTL_GPUS": "none"}
            inside["HOME"] = str(home)
            traced = Path(place) / "trace"
            begun = time.monotonic()
            _traced(host, traced, nimctl("bundle", "load", folder), inside)
            figures.found["load_s"] = round(time.monotonic() - begun, 1)
            if real:
                begun = time.monotonic()
                port = _free_port()
                _traced(host, traced, nimctl("run", "--locked", folder / "nimctl.lock", "--port", str(port)), inside)
                figures.found["run_s"] = round(time.monotonic() - begun, 1)
                said = _answer(host, port)
                figures.judge("the demo answers", said, met=bool(said), bar="text")
            calls = [line for path in Path(place).glob("trace*") for line in path.read_text().splitlines()]
            away = [line for line in calls if _NETWORK.search(line) and not _LOCAL.search(line)]
            figures.found["calls with an address"] = sum("sa_family=" in line for line in calls)
            figures.judge("connects to other hosts", len(away), met=not away, bar="0")
            attempts = host.attempts()
            tried = sum(attempts.values()) + host.left()
            figures.judge("packets out", tried, met=not tried, bar=f"0 ({', '.join(attempts)}, interfaces)")
            for line in away[:3]:
                print(line, file=sys.stderr)
            if real:
                figures.found["container"] = _in_container(host, env)
                host.run(nimctl("stop", "demo"), inside)


def _traced(host: SealedDocker, trace: Path, argv: list[str], env: Mapping[str, str]) -> None:
    strace = ["strace", "-f", "-q", "-s", "0", "-e", "trace=connect,sendto,sendmsg", "-o", f"{trace}-{argv[3]}"]
    done = host.run([*strace, *argv], env, SECONDS)
    if done.code != 0:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr[-3000:]}{done.stdout[-2000:]}")


def _answer(host: SealedDocker, port: int) -> str:
    """What the demo says, asked from inside."""
    script = (
        f"import json,sys,urllib.request as u;b='http://127.0.0.1:{port}/v1/';"
        "m=json.load(u.urlopen(b+'models'))['data'][0]['id'];d={'model':m,'prompt':'Hello','max_tokens':8};"
        "r=u.Request(b+'completions',json.dumps(d).encode(),{'Content-Type':'application/json'});"
        "print(repr(json.load(u.urlopen(r,timeout=120))['choices'][0]['text']))"
    )
    return host.run([sys.executable, "-c", script], os.environ).stdout.strip()


def _in_container(host: SealedDocker, env: Mapping[str, str]) -> str:
    """Whether the container has a way out: a try to reach another address from inside of it."""
    docker = [str(paths().unpacked / "usr/bin/docker"), "-H", f"unix://{host.socket}"]
    name = run([*docker, "ps", "-q"], env).stdout.strip()
    script = (
        "import socket;s=socket.socket();s.settimeout(2)\ntry:\n s.connect(('192.0.2.1',443));print('a way out')\n"
        "except OSError as e:print('no way out:',e)"
    )
    before = host.attempts()
    said = run([*docker, "exec", name, "python3", "-c", script], env).stdout.strip()
    after = host.attempts()
    seen = {key: after[key] - before[key] for key in after}
    return f"{said}; the try counted as {seen}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def speed(image: str, words: list[str], env: Mapping[str, str], scratch: Path, pairs: int) -> dict[str, Any]:
    """Create and load against save, cp, load, cp; the image is removed before each load."""
    docker = str(paths().unpacked / "usr/bin/docker")
    weights = next((scratch / "home/cache").glob("huggingface/hub/*/snapshots/*"))

    def forget() -> None:
        run([docker, "image", "rm", "-f", image], env)
        shutil.rmtree(scratch / "far", ignore_errors=True)

    def ours() -> float:
        place = scratch / "ours"
        shutil.rmtree(place, ignore_errors=True)
        begun = time.monotonic()
        must([*words[:5], str(place), *words[6:]], env)
        took = time.monotonic() - begun
        forget()
        begun = time.monotonic()
        must(nimctl("bundle", "load", place, "--cache", scratch / "far"), env)
        return took + time.monotonic() - begun

    def peer() -> float:
        place = scratch / "peer"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        begun = time.monotonic()
        must([docker, "save", "-o", str(place / "image.tar"), image], env)
        must(["cp", "-rL", str(weights), str(place / "weights")], env)
        took = time.monotonic() - begun
        forget()
        begun = time.monotonic()
        must([docker, "load", "-i", str(place / "image.tar")], env)
        must(["cp", "-r", str(place / "weights"), str(scratch / "far")], env)
        return took + time.monotonic() - begun

    return alternate(ours, peer, pairs)


def speed_real(words: list[str], env: Mapping[str, str], scratch: Path, pairs: int) -> dict[str, Any]:
    """The same with the CPU image; it is loaded into a daemon of its own each time, so that the lab keeps its image."""
    docker = str(paths().unpacked / "usr/bin/docker")
    image = json.loads((scratch / "nimctl.lock").read_text())["image"]["reference"]
    weights = next((scratch / "home/cache").glob("huggingface/hub/*/snapshots/*"))

    def far(argv: list[list[str]]) -> float:
        place = tempfile.TemporaryDirectory(prefix="far-", dir="/var/tmp", ignore_cleanup_errors=True)
        with place, sealed_docker(Path(place.name)) as host:
            inside = {**env, "DOCKER_HOST": f"unix://{host.socket}"}
            begun = time.monotonic()
            for program in argv:
                if (done := host.run(program, inside, SECONDS)).code != 0:
                    raise SystemExit(f"{program} failed: {done.stderr[-1000:]}")
            return time.monotonic() - begun

    def ours() -> float:
        shutil.rmtree(scratch / "bundle", ignore_errors=True)
        begun = time.monotonic()
        must(words, env)
        took = time.monotonic() - begun
        parts.append(("ours", round(took, 1)))
        shutil.rmtree(scratch / "far", ignore_errors=True)
        loading = far([nimctl("bundle", "load", scratch / "bundle", "--cache", scratch / "far")])
        parts.append(("ours, load", round(loading, 1)))
        return took + loading

    def peer() -> float:
        place = scratch / "peer"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        begun = time.monotonic()
        must([docker, "save", "-o", str(place / "image.tar"), image], env)
        must(["cp", "-rL", str(weights), str(place / "weights")], env)
        took = time.monotonic() - begun
        parts.append(("peer", round(took, 1)))
        shutil.rmtree(scratch / "far", ignore_errors=True)
        copy = ["cp", "-r", str(place / "weights"), str(scratch / "far")]
        loading = far([[docker, "load", "-i", str(place / "image.tar")], copy])
        parts.append(("peer, load", round(loading, 1)))
        return took + loading

    parts: list[tuple[str, float]] = []
    samples = [(ours(), peer()) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in samples)
    return {"samples_s": samples, "parts_s": parts, "ratio_median": round(ratios[len(ratios) // 2], 3)}


def _repository(image: str) -> str:
    return image.partition("/")[2].rpartition(":")[0]


def measure(options: argparse.Namespace) -> Figures:
    """Every step in order."""
    figures = Figures()
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bundle-", dir="/var/tmp")))
        (base / "home").mkdir()
        env = {**private_environment(lab.environment("none"), base / "home"), "NIMCTL_GPUS": "none"}
        os.chdir(base)
        folder = base / "bundle"
        words = nimctl("bundle", "create", folder, "demo")
        if options.real:
            must(nimctl("lock", "demo", "-o", base / "nimctl.lock"), env)
            image, at = "", 1_500_000_000
            words += ["--lock", str(base / "nimctl.lock")]
        else:
            image, at = small_image(), 103_000_000 + LAYERS * LAYER // 2
            words += ["--image", image]
        must(nimctl("pull", "builtin://demo", "--weights"), env)
        if options.real and options.pairs:
            result = speed_real(words, env, base, options.pairs)
            figures.found["peer"] = result
            figures.judge("create and load over the peer", result["ratio_median"],
                          met=result["ratio_median"] <= SPEED_BAR, bar=f"<= {SPEED_BAR}")  # fmt: skip
            return figures
        slowly = nullcontext() if options.real else lab.fault(_repository(image), rate=20_000_000)
        with slowly:
            cut(folder, words, env, at, figures)
        begun = time.monotonic()
        must(nimctl("bundle", "verify", folder, "--json"), env)
        figures.found["verify_s"] = round(time.monotonic() - begun, 2)
        must(["sh", "-c", f"cd {folder} && sha256sum --quiet -c SHA256SUMS"], env)
        if options.flips:
            flips(folder, options.flips, env, figures)
        sealed(folder, env, figures, real=options.real)
        if options.pairs:
            figures.found["peer"] = speed(image, words, env, base, options.pairs)
    return figures


def main() -> None:
    """Exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=0, help="rounds against the peer")
    parser.add_argument("--real", action="store_true", help="with the CPU image, and a start of the demo")
    options = parser.parse_args()
    lab.up()
    figures = measure(options)
    print(json.dumps({"name": "bundle_offline", "real": options.real, "met": not figures.missed, **figures.found}))
    raise SystemExit(1 if figures.missed else 0)


if __name__ == "__main__":
    main()

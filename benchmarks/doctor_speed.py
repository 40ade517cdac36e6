"""How long people wait for the doctor.

Bars: on a healthy host of eight GPUs `nimctl doctor --json` ends within 0.8 s and has looked within 0.6 s; with 1,024
GPUs within 3 s; with Docker, NVML and DNS hanging all at once within 6 s, and names each. Medians of the rounds for the
first two, every round for the last. The peer, which looks at driver, CUDA and libraries alone, is `env-doctor check`,
installed into a virtual environment of its own; both run in turn on the same simulated hosts.

    scripts/bench doctor_speed [--rounds 9]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cli_startup import install
from benchmarks.pairs import alternate
from tests.conftest import private_environment
from tests.lib import lab
from tests.lib.hung_host import hung_host, why_not

PEER = "env-doctor==0.3.5"
HEALTHY_S, LOOK_S, MANY_S, HUNG_S = 0.8, 0.6, 3.0, 6.0


def doctor(environment: Mapping[str, str], argv: list[str], looks: list[float], code: int = 0) -> float:
    """Seconds of one run of the doctor, which must end with `code`; what its look took goes into `looks`."""
    begin = time.perf_counter()
    done = subprocess.run(argv, env=dict(environment), capture_output=True, text=True, timeout=120, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode != code:
        raise SystemExit(
            f"the doctor ended with {done.returncode}, not {code}: {done.stdout[-800:]} {done.stderr[-800:]}"
        )
    looks.append(json.loads(done.stdout)["facts"]["look_seconds"])
    return seconds


def silent(environment: Mapping[str, str], argv: list[str]) -> Callable[[], float]:
    """One run of the peer in seconds; how it judges the simulated host does not count."""

    def run() -> float:
        begin = time.perf_counter()
        subprocess.run(argv, env=dict(environment), capture_output=True, timeout=120, check=False)
        return time.perf_counter() - begin

    return run


def line(what: str, figures: list[float], bar: float, judged: float, **more: Any) -> bool:
    """Print one figure for people and one JSON line; True when the bar is met."""
    met = judged <= bar
    spread = f"median {statistics.median(figures):.3f} s, {min(figures):.3f} to {max(figures):.3f} of {len(figures)}"
    print(f"{what}: {spread}, bar <= {bar:g} s: {'met' if met else 'MISSED'}")
    print(json.dumps({"name": what, "seconds": [round(s, 3) for s in figures], "bar": bar, "met": met, **more}))
    return met


def beside_peer(name: str, environment: Mapping[str, str], peer: str, rounds: int) -> tuple[list[float], list[float]]:
    """Times of our runs, and of their looks, with the peer's run after each of ours; the ratio is printed."""
    looks: list[float] = []
    times: list[float] = []
    argv = [sys.executable, "-m", "nimctl", "doctor", "demo", "--json"]

    def ours() -> float:
        times.append(doctor(environment, argv, looks))
        return times[-1]

    result = alternate(ours, silent(environment, [peer, "check", "--json"]), rounds)
    print(f"{name}: {result['ratio_median']}x of {PEER} check (range {result['ratio_range']})")
    print(json.dumps({"name": name, **result}))
    return times[1:], looks[1:]  # without the round that `alternate` does not count


def main() -> int:
    """Measure all four; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    met = []
    lab.up()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        peer = str(install(folder / "peer", PEER) / "env-doctor")
        for profile, bar in (("8xH200", HEALTHY_S), ("1024xH200", MANY_S)):
            environment = _as_installed(private_environment(lab.environment("8xH200"), folder))
            if profile != "8xH200":
                environment |= {"NVML_DOUBLE_JSON": str(_written(folder, profile))}
            times, looks = beside_peer(f"doctor on {profile}", environment, peer, rounds)
            met.append(line(f"doctor on {profile}", times, bar, statistics.median(times), load=os.getloadavg()[0]))
            if profile == "8xH200":
                met.append(line("facts gathered on 8xH200", looks, LOOK_S, statistics.median(looks)))
        if reason := why_not():
            print(f"doctor while everything hangs: not measured, {reason}")
        else:
            met.append(_hung(folder, max(3, rounds // 3)))
    return 0 if all(met) else 1


def _as_installed(environment: dict[str, str]) -> dict[str, str]:
    """Without the wish not to keep compiled modules: an installed program has them."""
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _written(folder: Path, profile: str) -> Path:
    lab.double_environment(profile, folder)
    return folder / f"{profile}.json"


def _hung(folder: Path, rounds: int) -> bool:
    with hung_host(folder, _as_installed(private_environment(os.environ, folder))) as host:
        argv = host.argv("doctor", "kimi-k2.5", "--gpus", "all", "--json")
        times = [doctor(host.environment, argv, [], code=3) for _ in range(rounds)]
    return line("doctor while Docker, NVML and DNS hang", times, HUNG_S, max(times))


if __name__ == "__main__":
    sys.exit(main())

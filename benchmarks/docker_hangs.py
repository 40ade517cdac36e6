"""How long people wait when the Docker daemon accepts connections and never answers.

Bar: `nimctl run demo` and `nimctl doctor demo` answer with `docker-hangs` within 6 s, every time. The peer is the
docker command itself (`docker version`), which is given 20 s: it waits for as long as it is let.

    scripts/bench docker_hangs [--times 5]
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 6.0
PEER_S = 20.0


def answer(verb: str, environment: dict[str, str]) -> tuple[float, bool]:
    """Seconds until `nimctl verb demo` has ended, and whether it named the cause."""
    begin = time.perf_counter()
    argv = [sys.executable, "-m", "nimctl", verb, "demo", "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    seconds = time.perf_counter() - begin
    document = json.loads(done.stdout)
    ids = {f["id"] for f in document.get("findings", [])} | {document.get("error", {}).get("id")}
    return seconds, done.returncode == 3 and "docker-hangs" in ids


def peer(environment: dict[str, str]) -> float | None:
    """Seconds that the docker command waits, `PEER_S` at most; None where there is no docker command."""
    if not shutil.which("docker"):
        return None
    begin = time.perf_counter()
    try:
        subprocess.run(["docker", "version"], env=environment, capture_output=True, timeout=PEER_S, check=False)
    except subprocess.TimeoutExpired:
        return PEER_S
    return time.perf_counter() - begin


def main() -> int:
    """Measure both verbs; exit 1 when one answer is late or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as silent:
        path = Path(folder, "docker.sock")
        silent.bind(str(path))
        silent.listen(64)
        environment = {**os.environ, "DOCKER_HOST": f"unix://{path}", "HOME": folder}
        met = True
        for verb in ("run", "doctor"):
            answers = [answer(verb, environment) for _ in range(times)]
            seconds = [s for s, _ in answers]
            good = max(seconds) <= LIMIT_S and all(named for _, named in answers)
            met = met and good
            figures = f"median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s of {times}"
            print(f"nimctl {verb} with a silent daemon: {figures}, bar <= {LIMIT_S:g} s: {'met' if good else 'MISSED'}")
            print(json.dumps({"verb": verb, "seconds": [round(s, 3) for s in seconds], "met": good}))
        waited = peer(environment)
        print(
            f"docker version with the same daemon: {'not here' if waited is None else f'{waited:.1f} s, then stopped'}"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

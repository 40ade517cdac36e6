"""A tag that somebody keeps moving between two images: which one starts, after which one was looked at?

Bar: 0 of the rounds start another image than the one that was decided on, while threads move the tag, in the registry
and in the engine, as fast as both take it. The rounds take turns: from a lock and from the tag, with the image here and
with none of both here. The peer is what people type: `docker image inspect TAG`, then `docker run TAG`.

    scripts/bench swapped_image [--rounds 100]
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker

from tests.conftest import private_environment
from tests.lib import lab
from tests.lib.lab.push import Registry, _Client, push_image

REPOSITORY = "open/lock-swap"
NAME = "nimctl-swap"
WAYS = ("lock", "tag", "lock, pulled", "tag, pulled")
PROGRAM = '#include <unistd.h>\nint main(void) { return write(1, "%s\\n", %d) < 0; }\n'
_DECIDED = re.compile(
    r"^(?:image \S+ is on this host.*|pulled \S+ at )\(?(?:sha256:)?([0-9a-f]{12,64})\)?$", re.MULTILINE
)


@dataclass
class Two:
    """The two images: what each says of itself, and by which digests it is known."""

    tag: str
    known: dict[str, str] = field(default_factory=dict)  # hexadecimal digest -> what the image says
    ids: dict[str, str] = field(default_factory=dict)  # what it says -> its id in the engine
    manifests: dict[str, bytes] = field(default_factory=dict)

    def decided(self, told: str) -> str | None:
        """Which of both nimctl said that it would start, by the beginning of a digest."""
        named = [who for one in _DECIDED.findall(told) for digest, who in self.known.items() if digest.startswith(one)]
        return named[-1] if named else None


def make(registry: Registry, api: docker.APIClient, folder: Path) -> Two:
    """Push both and pull both."""
    two = Two(f"{registry.address}/{REPOSITORY}:1")
    for who in ("one", "two"):
        source = folder / f"{who}.c"
        source.write_text(PROGRAM % (who, len(who) + 1))
        subprocess.run(["gcc", "-static", "-Os", "-s", "-o", str(folder / who), str(source)], check=True)
        digest = push_image(registry, f"{REPOSITORY}:{who}", {"hello": (folder / who).read_bytes()})
        api.pull(f"{registry.address}/{REPOSITORY}", tag=who)
        two.ids[who] = api.inspect_image(f"{registry.address}/{REPOSITORY}:{who}")["Id"]
        two.known |= {digest.partition(":")[2]: who, two.ids[who].partition(":")[2]: who}
        two.manifests[who] = _manifest(registry, digest)
    return two


def _manifest(registry: Registry, digest: str) -> bytes:
    client = _Client(registry, REPOSITORY)
    head = {"Authorization": f"Bearer {client._token}", "Accept": "application/vnd.oci.image.manifest.v1+json"}
    connection = http.client.HTTPConnection(registry.address, timeout=30)
    try:
        connection.request("GET", f"/v2/{REPOSITORY}/manifests/{digest}", headers=head)
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def moving(registry: Registry, two: Two, pull_too: threading.Event) -> Iterator[Counter[str]]:
    """Move the tag until the end of the block; counts how often, in the registry and in the engine."""
    moved: Counter[str] = Counter()
    over = threading.Event()

    def in_registry() -> None:
        head = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        while not over.is_set():
            with suppress(OSError, http.client.HTTPException, lab.LabError):  # it may hang up; then again
                client = _Client(registry, REPOSITORY)  # tokens are for five minutes
                for who in ("two", "one") * 50:
                    client.call("PUT", "manifests/1", two.manifests[who], head)
                    moved["registry"] += 1
                    if over.wait(0.03):
                        return

    def in_engine() -> None:
        api = docker.from_env().api
        repository, _, tag = two.tag.rpartition(":")
        while not over.is_set():
            for who in ("two", "one"):
                if pull_too.is_set():  # the image is to be away until it is pulled
                    over.wait(0.01)
                    continue
                try:
                    api.tag(two.ids[who], repository, tag, force=True)
                    moved["engine"] += 1
                except docker.errors.DockerException:
                    over.wait(0.01)
                over.wait(0.005)

    threads = [threading.Thread(target=move) for move in (in_registry, in_engine)]
    for thread in threads:
        thread.start()
    try:
        yield moved
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ours(way: str, two: Two, env: dict[str, str], lock: Path) -> tuple[str | None, str | None, str]:
    """Which image nimctl decided on, which one started, and what nimctl printed."""
    what = ["--locked", str(lock)] if way.startswith("lock") else [two.tag]
    argv = [sys.executable, "-m", "nimctl", "run", *what, "--name", NAME, "--gpus", "none", "--detach"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    told = done.stdout + done.stderr
    decided = "one" if way.startswith("lock") else two.decided(told)
    started = _said(docker.from_env().api, NAME, two) if done.returncode == 0 else None
    return decided, started, told


def peer(two: Two) -> tuple[str, str | None]:
    """The same with docker alone."""
    inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", two.tag]
    looked = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    name = f"{NAME}-peer"
    subprocess.run(["docker", "run", "--detach", "--name", name, two.tag], capture_output=True, check=True)
    return two.known[looked.partition(":")[2]], _said(docker.from_env().api, name, two)


def _said(api: docker.APIClient, name: str, two: Two) -> str | None:
    """What the program in the container says it is; where its log is empty yet, what the engine says."""
    try:
        api.wait(name, timeout=60)
        image = str(api.inspect_container(name)["Image"])
        return str(api.logs(name).decode().strip()) or two.known[image.partition(":")[2]]
    except docker.errors.NotFound:
        return None
    finally:
        with suppress(docker.errors.NotFound):
            api.remove_container(name, force=True)


def main() -> bool:
    """Run the rounds and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    asked = parser.parse_args()
    os.environ.update(lab.environment("none"))
    registry = Registry(os.environ["LAB_REGISTRY"], os.environ["LAB_REGISTRY_KEY"])
    api = docker.from_env().api
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="swap-") as temporary:
        folder = Path(temporary)
        two = make(registry, api, folder)
        push = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        _Client(registry, REPOSITORY).call("PUT", "manifests/1", two.manifests["one"], push)
        repository, _, tag = two.tag.rpartition(":")
        api.tag(two.ids["one"], repository, tag, force=True)
        env = private_environment(os.environ, folder)
        lock = folder / "nimctl.lock"
        argv = [sys.executable, "-m", "nimctl", "lock", two.tag, "--gpus", "none", "--output", str(lock)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        away = threading.Event()
        with moving(registry, two, away) as moved:
            for number in range(asked.rounds):
                way = WAYS[number % len(WAYS)]
                if way.endswith("pulled"):
                    away.set()
                    _remove(api, two)
                decided, started, told = ours(way, two, env, lock)
                if way.endswith("pulled"):
                    _restore(api, registry, two)
                    away.clear()
                verdict = "failed" if started is None else "unknown" if decided is None else "right"
                if started is not None and decided is not None and started != decided:
                    verdict = "wrong"
                counts[f"ours {verdict}"] += 1
                if verdict != "right":
                    sys.stderr.write(f"round {number} ({way}): {verdict}: {decided} {started}\n{told}\n")
                looked, ran = peer(two)
                counts["peer wrong" if looked != ran else "peer right"] += 1
        _remove(api, two)
    # a registry that is being written to answers 500 now and then; such a round starts nothing
    started = counts["ours right"] + counts["ours wrong"]
    met = counts["ours wrong"] == counts["ours unknown"] == 0 and started >= 0.9 * asked.rounds
    result = {
        "rounds": asked.rounds,
        "wrong": counts["ours wrong"],
        "failed": counts["ours failed"],
        "unknown": counts["ours unknown"],
        "peer_wrong": counts["peer wrong"],
        "moved_in_registry": moved["registry"],
        "moved_in_engine": moved["engine"],
    }
    print(
        f"swapped image: {result['wrong']} of {asked.rounds} started another image than was decided on, bar 0: "
        f"{'met' if met else 'MISSED'}; plain docker run: {result['peer_wrong']} of {asked.rounds}"
    )
    print(json.dumps({"name": "swapped_image", "bar": "0", "met": met, **result}))
    return met


def _remove(api: docker.APIClient, two: Two) -> None:
    for who, known in two.ids.items():
        for name in (two.tag, f"{two.tag.rpartition(':')[0]}:{who}", known):
            with suppress(docker.errors.DockerException):
                api.remove_image(name, force=True)


def _restore(api: docker.APIClient, registry: Registry, two: Two) -> None:
    for who in two.ids:
        for left in range(9, -1, -1):
            try:
                api.pull(f"{registry.address}/{REPOSITORY}", tag=who)
                break
            except docker.errors.APIError:  # the registry answers 500 while a tag of the repository is written
                if not left:
                    raise
    repository, _, tag = two.tag.rpartition(":")
    api.tag(two.ids["one"], repository, tag, force=True)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)

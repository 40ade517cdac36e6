"""What a registry says about an image and a key, without a blob: the right verdict, in time, in every situation.

Bars: in each of the situations the verdict is right, within 2 s (the slowest of the rounds), and no blob is asked for.
Against docker-registry with token authentication, as the lab has it. The peer, for what users see without us, is
`docker manifest inspect`, which asks for the same: of how many refusals it says what is wrong.

    scripts/bench entitlement_verdicts [--rounds 5]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.secret import Secret
from nimctl.registry.entitlement import Verdict, probe
from nimctl.registry.login import Login
from nimctl.registry.reference import parse
from tests.lib import lab
from tests.lib.lab.push import USER

BAR_S, BOUND_S = 2.0, 1.8
HERE, ELSEWHERE = "linux/amd64", "linux/ppc64le"
WRONG = "nvapi-wrong-0123456789"


@dataclass(frozen=True)
class Situation:
    """An image, the key that is shown (good, wrong, none), and the verdict that is right."""

    name: str
    image: str
    verdict: Verdict
    key: str = "good"


SITUATIONS = (
    Situation("granted", "nim/verdicts/two:1", "granted"),
    Situation("granted to anybody", "open/tiny:1", "keyless", "none"),
    Situation("key missing", "nim/verdicts/two:1", "key-missing", "none"),
    Situation("key refused", "nim/verdicts/two:1", "key-refused", "wrong"),
    Situation("wrong organisation", "private/verdicts/two:1", "organisation-wrong"),
    Situation("terms not accepted", "nim/terms/two:1", "terms-not-accepted"),
    Situation("payment required", "unpaid/tiny:1", "payment-required"),
    Situation("not found", "nim/verdicts/nothing:1", "not-found"),
    Situation("architecture missing", "nim/verdicts/two:foreign", "architecture-missing"),
    Situation("rate limited", "busy/tiny:1", "rate-limited"),
    Situation("registry out of order", "down/tiny:1", "no-answer"),
    Situation("token expired meanwhile", "renewed/tiny:1", "granted"),
    Situation("index with this architecture", "nim/verdicts/two:index", "granted"),
    Situation("token without rights", "hidden/tiny:1", "organisation-wrong"),
    Situation("unknown media type", "odd/tiny:1", "unusable"),
    Situation("token service's clock slow", "late/tiny:1", "clock-wrong"),
    Situation("token service's clock fast", "early/tiny:1", "clock-wrong"),
    Situation("registry silent", "slow/tiny:1", "no-answer"),
    Situation("registry down", "", "no-answer"),
)


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


def publish() -> None:
    """Have the images of the situations in the registry."""
    digest = lab.push_image("nim/verdicts/two:1")
    lab.push_index("nim/verdicts/two:index", {HERE: digest, ELSEWHERE: digest})
    lab.push_index("nim/verdicts/two:foreign", {ELSEWHERE: digest})


def login(kind: str) -> Login | None:
    """The login of a situation."""
    keys = {"good": lab.registry_info().key, "wrong": WRONG}
    return Login(USER, Secret(keys[kind])) if kind in keys else None


def look(situation: Situation, address: str, rounds: int) -> dict[str, object]:
    """The verdicts and the slowest look of some rounds, and the blobs that were asked for."""
    repository = situation.image.partition(":")[0]
    before, verdicts, times = lab.served(repository), set(), []
    for _ in range(rounds):
        begin = time.perf_counter()
        verdicts.add(
            probe(parse(f"{address}/{situation.image or 'a/b:1'}"), login(situation.key), HERE, seconds=BOUND_S).verdict
        )
        times.append(time.perf_counter() - begin)
    return {
        "situation": situation.name,
        "verdicts": sorted(verdicts),
        "right": verdicts == {situation.verdict},
        "slowest_s": round(max(times), 3),
        "blobs": (lab.served(repository) - before).blobs,
    }


def peers_words(situation: Situation, address: str, folder: Path) -> str:
    """What `docker manifest inspect` says in the same situation, without the name of the image."""
    config = folder / situation.key
    if not config.exists():
        lab.docker_config(config, key=lab.registry_info().key if situation.key == "good" else None)
    if situation.key == "wrong":
        auth = {lab.registry_info().address: {"username": USER, "password": WRONG}}
        file = config / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "auths": auth}))
    image = f"{address}/{situation.image or 'a/b:1'}"
    try:
        done = lab.docker("--config", config, "manifest", "inspect", "--insecure", image, timeout=10)
    except subprocess.TimeoutExpired:
        return "waits"
    said = done.stderr.strip().splitlines()[-1] if done.returncode else "granted"
    return said.replace(image, "IMAGE").replace(situation.image.partition(":")[0] or "a/b", "REPOSITORY")


def confused(words: dict[str, str]) -> list[str]:
    """The refusals for which the peer waits for ever, or says what it also says where another verdict is right."""
    right = {situation.name: situation.verdict for situation in SITUATIONS}
    return [
        name
        for name, said in words.items()
        if right[name] not in ("granted", "keyless")
        and (
            said in ("waits", "granted") or any(said == words[other] and right[other] != right[name] for other in words)
        )
    ]


def main() -> int:
    """Run all; 0 when the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if reason := lab.available():
        print(f"needs the lab: {reason}", file=sys.stderr)
        return 2
    lab.up()
    publish()
    load, results, words = os.getloadavg()[0], [], {}
    with nobody() as down, tempfile.TemporaryDirectory() as folder:
        for situation in SITUATIONS:
            address = lab.registry_info().address if situation.image else down
            result = look(situation, address, rounds)
            words[situation.name] = peers_words(situation, address, Path(folder))
            results.append(result)
            print(f"{situation.name:29}{', '.join(map(str, result['verdicts'])):22}{result['slowest_s']} s", flush=True)
    alike = confused(words)
    met = all(r["right"] and float(str(r["slowest_s"])) <= BAR_S and not r["blobs"] for r in results)
    right, blobs = sum(bool(r["right"]) for r in results), sum(int(str(r["blobs"])) for r in results)
    slowest = max(float(str(r["slowest_s"])) for r in results)
    print(
        f"{right} of {len(results)} verdicts right, slowest {slowest} s (bar {BAR_S:g} s), {blobs} blobs: "
        f"{'met' if met else 'MISSED'}; docker says of {len(alike)} what it also says of others, or nothing"
    )
    summary = {"name": "entitlement_verdicts", "bar_s": BAR_S, "met": met, "rounds": rounds, "load_before": load}
    print(json.dumps({**summary, "situations": results, "docker_said": words, "docker_confuses": alike}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

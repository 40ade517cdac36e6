"""Canary keys go through every verb that meets keys, right and wrong, and twelve sinks are searched for them.

Bar: 0 hits in every sink. The sweep proves itself in the same run: another canary is planted in each sink, in one of
its forms, and every sink where it is not found is a failure. Keys are looked for raw, in base64 at any offset (and so
in basic-auth headers), quoted as in addresses, escaped as in JSON and in hexadecimal.

What is told and not counted: variables that the caller's own shell holds and that a program needs for the network
(`*_PROXY`), and, told as `key-in-environment`, the environment of NVIDIA's containers, which read no key files.

    scripts/bench key_sinks [--runtimes process,docker] [--build none|cut|full] [--keep]
"""

import argparse
import base64
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from tests.lib import key_stage as staging
from tests.lib import lab, spawned
from tests.lib.canaries import Hit, Hunt
from tests.lib.lab.paths import paths

NAMES = {
    1: "argv of every process that was started",
    2: "docker inspect",
    3: "environ of children and in containers",
    4: "logs of containers, runs, daemons",
    5: "image history and configuration",
    6: "files of image layers",
    7: "build cache and the engine's folders",
    8: "JSON documents",
    9: "errors, --debug, people's text",
    10: "config and state files",
    11: "temporary files and shared memory",
    12: "facts, lock, bundle",
}
PLANT = "plant"
LABEL = "name=key-sinks"


@dataclass
class Sweep:
    """Everything the search needs; `seen` and `inspected` come from the watch of containers."""

    hunt: Hunt
    top: Path
    stage: Mapping[str, Any]
    since: float
    started: list[spawned.Spawned]
    watch: spawned.Watch
    logs: Mapping[Path, int]

    @property
    def out(self) -> Path:
        """Where the scenes' outputs are."""
        return Path(self.stage["out"])

    def in_outputs(self, *suffixes: str) -> set[Hit]:
        """The canaries in the scenes' outputs of these kinds."""
        return self.hunt.in_files(p for p in sorted(self.out.iterdir()) if p.suffix in suffixes)


def argv(sweep: Sweep) -> set[Hit]:
    every = [*sweep.started, *sweep.watch.seen]
    return {hit for one in every for word in one.argv for hit in sweep.hunt.in_text(word, f"argv of {_short(one)}")}


def inspect(sweep: Sweep) -> set[Hit]:
    return {h for one, text in sweep.watch.inspected.items() for h in sweep.hunt.in_text(text, f"inspect {one[:12]}")}


def environ(sweep: Sweep) -> set[Hit]:
    """nimctl's own environment is the caller's; everybody else's counts."""
    hits: set[Hit] = set()
    for one in [*(s for s in sweep.started if not is_nimctl(s)), *sweep.watch.seen]:
        for entry in one.environ:
            hits |= sweep.hunt.in_text(entry, f"{entry.partition('=')[0]} of {_short(one)}")
    return hits


def logs(sweep: Sweep) -> set[Hit]:
    hits = {h for p, size in sweep.logs.items() for h in sweep.hunt.in_bytes(_after(p, size), str(p))}
    hits |= sweep.hunt.in_files(p for p in sweep.out.iterdir() if p.name.startswith("logs-"))
    hits |= sweep.hunt.in_tree(Path(sweep.stage["front_log"]).parent)
    return hits | sweep.hunt.in_stream([*staging.docker_command(), "logs", "key-sinks-plant"], "docker logs")


def history(sweep: Sweep) -> set[Hit]:
    hits: set[Hit] = set()
    for image in images(sweep):
        for words in (["history", "--no-trunc", "--format", "json"], ["image", "inspect"]):
            text = lab.docker(*words, image).stdout
            hits |= sweep.hunt.in_text(text, f"{words[0]} {image}")
    return hits


def layers(sweep: Sweep) -> set[Hit]:
    hits: set[Hit] = set()
    for image in images(sweep):
        with tempfile.TemporaryDirectory(prefix="key-sinks-layers-", dir="/var/tmp") as folder:
            save = subprocess.Popen([*staging.docker_command(), "save", image], stdout=subprocess.PIPE)
            subprocess.run(["tar", "-xf", "-", "-C", folder], stdin=save.stdout, check=True, timeout=900)
            save.wait(60)
            found = sweep.hunt.in_tree(folder)
        hits |= {Hit(h.where.replace(folder, image), h.canary, h.form) for h in found}
    return hits


def build_cache(sweep: Sweep) -> set[Hit]:
    shown = lab.docker("buildx", "du", "--verbose").stdout
    state = paths().state
    folders = [state / name for name in ("docker", "containerd", "run")]
    return sweep.hunt.in_text(shown, "buildx du") | sweep.hunt.in_tree(*folders, since=sweep.since)


def documents(sweep: Sweep) -> set[Hit]:
    return sweep.in_outputs(".stdout")


def errors(sweep: Sweep) -> set[Hit]:
    return sweep.in_outputs(".stderr")


def state(sweep: Sweep) -> set[Hit]:
    return sweep.hunt.in_tree(sweep.stage["home"])


def leftovers(sweep: Sweep) -> set[Hit]:
    own = [sweep.top / name for name in ("private", "docker", "bin", "registry", "home")]
    places = ["/tmp", "/dev/shm", "/run", "/var/tmp"]
    return sweep.hunt.in_tree(*places, since=sweep.since, skip=[*own, paths().state])


def carried(sweep: Sweep) -> set[Hit]:
    home = Path(sweep.stage["home"])
    return sweep.hunt.in_tree(*(p for p in home.iterdir() if p.name in ("facts.json", "nimctl.lock", "bundle")))


SINKS: dict[int, Callable[[Sweep], set[Hit]]] = dict(
    enumerate(
        (
            argv, inspect, environ, logs, history, layers, build_cache, documents, errors, state, leftovers, carried,
        ),
        1,
    )
)  # fmt: skip


def images(sweep: Sweep) -> list[str]:
    """The images that the scenes and the plants made, as far as they are there."""
    named = [sweep.stage["built"], "nimctl-key-sinks/plant"]
    return [name for name in named if lab.docker("image", "inspect", name).returncode == 0]


def is_nimctl(one: spawned.Spawned) -> bool:
    """Whether this is nimctl itself, whose environment is the caller's."""
    return one.argv[1:3] == ("-m", "nimctl")


def told(hit: Hit) -> bool:
    """Whether a hit is the shell's own proxy variable, as a program that was started inherits it."""
    return hit.canary == "proxy password" and hit.where.partition(" ")[0].upper() in ("HTTP_PROXY", "HTTPS_PROXY")


def _short(one: spawned.Spawned) -> str:
    return " ".join(one.argv)[:70]


def _after(path: Path, size: int) -> bytes:
    with suppress(OSError), path.open("rb") as file:
        file.seek(size)
        return file.read()
    return b""


def plant(top: Path, stage: Mapping[str, Any], value: str) -> None:
    """Put the canary of the plants into every sink but the processes, which the scenes' end starts."""
    basic = base64.b64encode(f"$oauthtoken:{value}".encode()).decode()
    quoted, home = f"https://reader:{quote(value, safe='')}@mirror/simple", Path(stage["home"])
    recipe = f"FROM {lab.BASE_IMAGE}\nLABEL planted={value}\nRUN echo {basic} > /planted\n"
    built = subprocess.run(
        [*staging.docker_command(), "buildx", "build", "--quiet", "--tag", "nimctl-key-sinks/plant", "-"],
        input=recipe, env=stage["environment"], capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if built.returncode:
        raise SystemExit(f"the plant's image cannot be built: {built.stderr}")
    script = f"echo Authorization: Basic {basic}; sleep 2"
    made = lab.docker(
        "run", "--detach", "--name", "key-sinks-plant", "--env", f"PLANT={quoted}", lab.BASE_IMAGE, "sh", "-c", script
    )
    if made.returncode:
        raise SystemExit(f"the plant's container cannot be started: {made.stderr}")
    out = Path(stage["out"])
    (out / "planted.stdout").write_text(json.dumps({"planted": value}))
    (out / "planted.stderr").write_text(f"Traceback: cannot reach {quoted}\n")
    (home / "state").mkdir(exist_ok=True)
    (home / "state/planted").write_text(basic)
    (top / "tmp/planted").write_text(value)
    (home / "facts.json").open("a").write(f"\n{quoted}\n")


def play(stage_file: Path, sweep_log: Path) -> int:
    """Run the scenes under strace; what they say of themselves goes to stderr."""
    scenes = [sys.executable, "-m", "tests.lib.key_scenes", str(stage_file)]
    return subprocess.run([*spawned.strace(sweep_log), *scenes], check=False, timeout=5400).returncode


def judge(found: Mapping[int, set[Hit]]) -> bool:
    """Print the table; True when nothing but plants was found, and each of these."""
    met = True
    for number, hits in found.items():
        plants, leaked = {hit for hit in hits if hit.canary == PLANT}, leaks(number, hits)
        known = len(hits) - len(plants) - len(leaked)
        proof = f"plant found ({', '.join(sorted({hit.form for hit in plants}))})" if plants else "PLANT NOT FOUND"
        more = f"; {known} told: the shell's own proxy variables" if known else ""
        print(f"{number:>2}  {NAMES[number]:<42} {len(leaked):>3} hits  {proof}{more}")
        for hit in sorted(leaked)[:12]:
            print(f"      {hit.canary} ({hit.form}) in {hit.where}")
        met = met and bool(plants) and not leaked
    return met


def notes(stage: Mapping[str, Any]) -> list[str]:
    """What is told of NVIDIA's images, whose key is no leak and no zero either."""
    planned = Path(stage["out"]) / "dry-run-kimi-k2.5-turbo.stdout"
    plan = json.loads(planned.read_text())["plan"] if planned.exists() else {"secrets": []}
    names = [secret["name"] for secret in plan["secrets"] if secret["source"] is None]
    text = "key-in-environment: NVIDIA's containers have it in Config.Env and in the environ of their processes"
    return [f"told: {name} as {text}" for name in names]


def leaks(number: int, hits: set[Hit]) -> set[Hit]:
    """What was found in a sink and is neither a plant nor told."""
    return {hit for hit in hits if hit.canary != PLANT and not (number == 3 and told(hit))}


def _stop_cleanly(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", default="process,docker", help="where the demo is started; empty: nowhere")
    parser.add_argument("--build", choices=("none", "cut", "full"), default="cut")
    parser.add_argument("--parts", default="login,registry,run,build,late")
    parser.add_argument("--keep", action="store_true", help="leave the stage folder, for a look at it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop_cleanly)  # whatever ends us, our own registry goes first
    lab.up()
    canaries = staging.new_canaries()
    value = staging.new_canaries()["refused key"]
    started = time.time()
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="key-sinks-"))
        if not options.keep:
            stack.callback(lambda: subprocess.run(["rm", "-rf", "--", str(top)], check=False))
        stack.callback(_clean)
        place = stack.enter_context(staging.own_registry(top / "registry", canaries["registry password"]))
        proxy = stack.enter_context(staging.Guard(staging.bridge_address(), canaries["proxy password"]))
        stage_file = staging.set_stage(top, place, proxy.url, canaries, _stage_options(options, value, proxy.url))
        stage = json.loads(stage_file.read_text())
        _new_base(stage)
        logs_before = {p: p.stat().st_size for p in sorted((paths().state / "log").glob("*.log"))}
        with spawned.Watch(staging.docker_command(), LABEL) as watch:
            code = play(stage_file, top / "private/strace.log")
            plant(top, stage, value)
            time.sleep(1.5)  # the plant's container lives for two seconds, and the watch looks ten times in each
        started_by = spawned.read(top / "private/strace.log")
        hunt = Hunt({**canaries, **_signing_key(Path(stage["keys"])), PLANT: value})
        sweep = Sweep(hunt, top, stage, started, started_by, watch, logs_before)
        found = {number: sink(sweep) for number, sink in SINKS.items()}
        met = judge(found) and code == 0
        scenes = len(list(sweep.out.glob("*.stdout"))) - 1
        for line in notes(stage):
            print(line)
    result = {
        "name": "key_sinks",
        "met": met,
        "hits": {NAMES[number]: len(leaks(number, hits)) for number, hits in found.items()},
        "scenes": scenes,
        "scenes_ended_right": code == 0,
        "processes": len(started_by),
        "proxied": len(proxy.passages),
        "seconds": round(time.time() - started, 1),
    }
    print(json.dumps(result))
    return 0 if met else 1


def _stage_options(options: argparse.Namespace, value: str, proxy: str) -> dict[str, Any]:
    return {
        "plant": value,
        "parts": [part for part in options.parts.split(",") if part],
        "runtimes": [runtime for runtime in options.runtimes.split(",") if runtime],
        "build": options.build,
        "large_mib": 64,
        "base": "nimctl-key-sinks/base",
        "built": "nimctl-key-sinks/built",
    }


def _signing_key(folder: Path) -> dict[str, str]:
    """A line of the private key that the scenes made, as another canary."""
    lines = [p.read_text().splitlines()[1] for p in folder.glob("*.key")] if folder.is_dir() else []
    return {"signing key": lines[0]} if lines else {}


def _new_base(stage: Mapping[str, Any]) -> None:
    """A base image that no build has met, so that every step of one runs."""
    if stage["build"] != "none":
        recipe = f"FROM {lab.BASE_IMAGE}\nRUN echo {secrets.token_hex(8)} > /etc/key-sinks\n"
        argv = [*staging.docker_command(), "buildx", "build", "--quiet", "--tag", stage["base"], "-"]
        subprocess.run(argv, input=recipe, env=stage["environment"], capture_output=True, text=True, check=True)


def _clean() -> None:
    """Remove the containers and images that this run made; the build cache is BuildKit's to keep."""
    for name in lab.docker("ps", "--all", "--quiet", "--filter", LABEL).stdout.split():
        lab.docker("rm", "--force", name)
    lab.docker("rmi", "--force", "nimctl-key-sinks/plant", "nimctl-key-sinks/base", "nimctl-key-sinks/built")


if __name__ == "__main__":
    sys.exit(main())

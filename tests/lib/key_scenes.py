"""What people and CI jobs do with keys, one command after the other, right and wrong.

Run as a program under strace, so that all that these commands start is seen: `python -m tests.lib.key_scenes STAGE`,
where STAGE is the file that `key_stage.set_stage` wrote. Each command's output lands in `NAME.stdout` and `.stderr`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = "$oauthtoken"


@dataclass(frozen=True)
class Scene:
    """One command of nimctl; `code` is how it must end (None: as it likes), `cut_when` a file's text to wait for."""

    name: str
    argv: Sequence[str]
    code: int | None = 0
    stdin: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stop_after: tuple[str, str] | None = None  # (file, text): SIGTERM once the file holds the text
    timeout: float = 300.0


def login_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """A login for each kind of store, with `--debug` and without, and how each can fail."""
    registry, key = stage["registry"], stage["canaries"]["registry password"]
    wrong = stage["canaries"]["refused key"]
    base = ["login", registry, "--username", USER, "--password-stdin"]
    for store in ("plain", "store", "helper"):
        env = {"DOCKER_CONFIG": stage["docker"][store]}
        yield Scene(f"login-{store}", base, 0, key, env)
        yield Scene(f"login-{store}-json-debug", [*base, "--json", "--debug"], 0, key, env)
        yield Scene(f"login-{store}-refused", [*base, "--json", "--debug"], 4, wrong, env)
    talks = {"DOCKER_CONFIG": stage["docker"]["talks"]}
    yield Scene("login-helper-that-talks", [*base, "--json", "--debug"], None, key, talks)
    broken = {"DOCKER_CONFIG": stage["docker"]["broken"]}
    yield Scene("login-broken-file", [*base, "--json", "--debug"], None, key, broken)
    elsewhere = ["login", "127.0.0.1:9", "--password-stdin", "--json", "--debug"]
    yield Scene("login-no-answer", elsewhere, None, key)
    yield Scene("login-environment", ["login", "--json", "--debug"], None)  # nvcr.io, through a proxy with a password


def registry_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """Probe and pull: granted, refused in every way, cut."""
    at = stage["registry"]
    logged_in, nobody = {"DOCKER_CONFIG": stage["docker"]["plain"]}, {"DOCKER_CONFIG": stage["docker"]["nobody"]}
    nim, other = f"{at}/nim/moonshotai/kimi-k2.5-turbo:1.0.0", f"{at}/nim/moonshotai/kimi-k2.5:1.7.0-variant"
    facts = f"{stage['home']}/facts.json"
    yield Scene("probe", ["doctor", nim, "--json", "--debug", "--save-facts", facts], None, env=logged_in)
    yield Scene("probe-people", ["doctor", "kimi-k2.5-turbo", "--debug", "--verbose"], None, env=logged_in)
    yield Scene("plan", ["plan", "kimi-k2.5", "--hardware", "8xH200", "--json", "--debug"], None)
    for name in ("kimi-k2.5-turbo", "kimi-k2.5", "demo"):
        dry = ["run", name, "--gpus", "none" if name == "demo" else "8", "--dry-run"]
        yield Scene(f"dry-run-{name}", [*dry, "--json", "--debug"], None, env=logged_in)
        yield Scene(f"dry-run-{name}-people", dry, None, env=logged_in)
    images = {
        "granted": nim, "open": f"{at}/open/tiny:1", "unpaid": f"{at}/unpaid/tiny:1", "terms": f"{at}/terms/tiny:1",
        "busy": f"{at}/busy/tiny:1", "down": f"{at}/down/tiny:1", "unknown": f"{at}/nim/nobody/knows:1",
    }  # fmt: skip
    for name, image in images.items():
        granted = name in ("granted", "open")
        pull = ["pull", "--image", image, "demo", "--gpus", "none", "--json", "--debug"]
        yield Scene(f"pull-{name}", pull, 0 if granted else 5 if name in ("unknown", "down", "busy") else None,
                    env=logged_in)  # fmt: skip
    yield Scene("pull-people", ["pull", "--image", nim, "demo", "--gpus", "none", "--debug"], 0, env=logged_in)
    yield Scene("pull-nobody", ["pull", "--image", other, "demo", "--json", "--debug"], None, env=nobody)
    wrong = {"DOCKER_CONFIG": stage["docker"]["wrong"]}
    yield Scene("pull-refused-key", ["pull", "--image", other, "demo", "--json", "--debug"], 4, env=wrong)
    given = {**nobody, "DOCKER_AUTH_CONFIG": (Path(stage["docker"]["given"]) / "config.json").read_text()}
    yield Scene("pull-given-login", ["pull", "--image", other, "demo", "--json", "--debug"], 0, env=given)
    large = ["pull", "--image", f"{at}/nim/large:1", "demo", "--gpus", "none", "--debug"]
    yield Scene("pull-cut", large, None, env=logged_in, stop_after=(stage["front_log"], "/blobs/" + stage["large"]))


def run_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """The demo as a process and in a container, with `--debug` and without, and a start that fails."""
    for runtime in stage["runtimes"]:
        name, port = f"key-sinks-{runtime}", str(stage["ports"][runtime])
        run = ["run", "demo", "--gpus", "none", "--runtime", runtime, "--name", name, "--port", port]
        yield Scene(f"run-{runtime}", [*run, "--json", "--debug"], 0, timeout=600)
        for verb in ("status", "logs"):
            yield Scene(f"{verb}-{runtime}", [verb, name, "--json"] if verb == "status" else [verb, name])
        yield Scene(f"ps-{runtime}", ["ps", "--json"])
        if runtime == "docker":
            lock = ["--output", f"{stage['home']}/nimctl.lock", "--json", "--debug"]
            yield Scene("lock", ["lock", "demo", "--gpus", "none", *lock], None)
            yield Scene("lock-check", ["lock", "--check", *lock], None)
            yield Scene("drift", ["drift", name, "--json", "--debug"], None)
            dry = ["run", "--locked", f"{stage['home']}/nimctl.lock", "--dry-run", "--json", "--debug"]
            yield Scene("run-locked", dry, None)
        yield Scene(f"run-{runtime}-again", [*run, "--json", "--debug"], None)
        yield Scene(f"stop-{runtime}", ["stop", name, "--json"])
        yield Scene(f"run-{runtime}-people", [*run, "--detach"], 0)
        yield Scene(f"stop-{runtime}-early", ["stop", name])
        fails = [*run, "--json", "--debug", "--", "--tokenizer", "/no/such/tokenizer"]
        yield Scene(f"run-{runtime}-fails", fails, None, timeout=600)
        yield Scene(f"logs-{runtime}-failed", ["logs", name], None)
        yield Scene(f"stop-{runtime}-failed", ["stop", name], None)


def build_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """A build whose secrets are a CA bundle, a package index with a password and a proxy with another."""
    base = stage["base"]
    env = {"NIMCTL_BUILD_BASE": base, "PIP_CONFIG_FILE": stage["pip"], **stage["proxy_of_builds"]}
    build = ["build", "cpu", "--base", base, "--ca", stage["ca"], "--tag", stage["built"]]
    if stage["build"] in ("cut", "full"):
        refused = {**env, "PIP_CONFIG_FILE": stage["pip_refused"], "PIP_NO_INDEX": ""}
        yield Scene("build-refused", [*build, "--json", "--debug"], None, env=refused, timeout=900)
    if stage["build"] == "full":
        yield Scene("build", [*build, "--json", "--debug"], 0, env=env, timeout=1800)
        yield Scene("build-again", build, 0, env=env, timeout=900)


def late_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """What is written down to be carried elsewhere, and the end of the logins."""
    home, logged_in = stage["home"], {"DOCKER_CONFIG": stage["docker"]["plain"]}
    image, keys = f"{stage['registry']}/nim/moonshotai/kimi-k2.5-turbo:1.0.0", stage["keys"]
    of_demo, said = ["demo", "--gpus", "none", "--image", image], ["--json", "--debug"]
    passphrase = {**logged_in, "NIMCTL_SIGN_PASSPHRASE": stage["canaries"]["passphrase"]}
    yield Scene("sign-generate", ["sign", "--generate", keys, *said], 0, env=passphrase)
    private, public = f"{keys}/nimctl.key", f"{keys}/nimctl.pub"
    yield Scene("sign", ["sign", image, "--key", private, *said], 0, env=passphrase)
    wrong = ["sign", image, "--key", private, "--passphrase-stdin", *said]
    yield Scene("sign-refused", wrong, None, stage["canaries"]["refused key"], logged_in)
    yield Scene("verify", ["verify", image, "--key", public, *said], 0, env=logged_in)
    other = ["lock", *of_demo, "--output", f"{home}/other.lock"]
    yield Scene("lock-of-another-image", [*other, *said], None, env=logged_in)
    bundle = ["bundle", "create", f"{home}/bundle", *of_demo, "--sign-key", private]
    yield Scene("bundle", [*bundle, *said], None, env=passphrase, timeout=600)
    yield Scene("bundle-verify", ["bundle", "verify", f"{home}/bundle", *said], None)
    for store in ("plain", "store", "helper"):
        env = {"DOCKER_CONFIG": stage["docker"][store]}
        yield Scene(f"logout-{store}", ["logout", stage["registry"], *said], 0, env=env)


def quick_scenes(stage: Mapping[str, Any]) -> Iterator[Scene]:
    """A few of login and registry, a second each at most."""
    names = {
        "login-plain", "login-store-json-debug", "login-helper-refused", "login-helper-that-talks", "login-broken-file",
        "dry-run-demo", "pull-granted", "pull-terms", "pull-refused-key",
    }  # fmt: skip
    yield from (s for part in (login_scenes, registry_scenes) for s in part(stage) if s.name in names)


PARTS = {
    "quick": quick_scenes,
    "login": login_scenes, "registry": registry_scenes, "run": run_scenes, "build": build_scenes, "late": late_scenes,
}  # fmt: skip


def play(scene: Scene, stage: Mapping[str, Any]) -> bool:
    """Run a scene and keep what it wrote; False, and a line on stderr, where it did not end as it must."""
    out = Path(stage["out"])
    env = {**stage["environment"], **scene.env}
    begun = time.monotonic()
    with (out / f"{scene.name}.stdout").open("w") as stdout, (out / f"{scene.name}.stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "nimctl", *scene.argv],
            env=env, cwd=stage["home"], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, text=True,
        )  # fmt: skip
        if scene.stop_after:
            _stop(process, scene.stop_after)
        try:
            process.communicate(scene.stdin, timeout=scene.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    good = scene.code is None or process.returncode == scene.code
    said = "" if good else f", and {scene.code} was expected: " + (out / f"{scene.name}.stderr").read_text()[-600:]
    sys.stderr.write(f"{scene.name}: exit {process.returncode} after {time.monotonic() - begun:.1f} s{said}\n")
    return good


def _stop(process: "subprocess.Popen[str]", when: tuple[str, str]) -> None:
    """SIGTERM once the file holds the text."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if when[1] in Path(when[0]).read_text(errors="replace"):
            process.send_signal(signal.SIGTERM)
            return
        time.sleep(0.01)


def main(stage_file: str) -> int:
    stage = json.loads(Path(stage_file).read_text())
    played = [play(scene, stage) for part in stage["parts"] for scene in PARTS[part](stage)]
    # A process that the sweep must find, by its word and by its variable.
    plant = stage["plant"]
    subprocess.run(["/bin/sh", "-c", ":", plant], env={"PATH": os.environ["PATH"], "PLANT": plant}, check=True)
    return 0 if all(played) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

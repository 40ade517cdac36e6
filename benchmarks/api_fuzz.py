"""Whether the whole API survives schemathesis: right and wrong requests made from our own `/openapi.json`.

Four rounds through the front of a running demo, each with requests that fit the description and with such that do not:

    as served    the description as it is, but with few tokens to answer; most requests end at the model's name or at
                 our rules
    aimed        also with the model's true name and something to say, so that requests reach the engine

Bars: no answer of 500 or above, no request without an answer, no engine restart, and a chat is answered afterwards.
Each request that missed a bar is saved beside the report of its round.

    scripts/bench api_fuzz [--examples 40] [--url http://127.0.0.1:8000] [--rounds served-positive,aimed-negative]

Without `--url` the demo is started as a process of this host. https://schemathesis.readthedocs.io/
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks._container import BenchmarkError, free_port
from benchmarks._requests import START_SECONDS, ask, chat

ROOT = Path(__file__).resolve().parent.parent
SCHEMATHESIS = ROOT / ".venv-clients/bin/schemathesis"
ROUNDS = ("served-positive", "served-negative", "aimed-positive", "aimed-negative")
REQUEST_SECONDS = 60
# What aimed requests may say and how much they may ask for, by the fields' names.
HI = [{"role": "user", "content": "hi"}]
SAID: dict[str, list[Any]] = {
    "messages": [HI, [*HI, {"role": "assistant", "content": "yes"}, *HI]],
    "prompt": ["hi", ["hi", "you"]],
    "input": ["hi", [{**HI[0], "type": "message"}]],
}
FEW = {"max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "min_tokens": 0, "n": 2, "best_of": 1}
# What the demo's engine refuses wherever it is given: with it, no aimed request would get any further.
CLOSED = ("prompt_embeds", "suffix")


@dataclass(frozen=True)
class Round:
    """Answers of one round by class (`2xx`); `bad` are the requests that were answered by 5xx or not at all."""

    name: str
    answers: Mapping[str, int]
    bad: Sequence[Mapping[str, Any]]
    seconds: float


def bounded(document: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The description, where bodies ask for little; with `model` they name it and mostly say something."""
    narrowed = copy.deepcopy(dict(document))
    for schema in narrowed["components"]["schemas"].values():
        fields = schema.get("properties", {})
        said = next((name for name in ("messages", "input", "prompt", "tokens") if name in fields), None)
        if "model" not in fields or said is None:
            continue
        wanted = {"max_tokens", "max_output_tokens"} & fields.keys()
        asked: dict[str, Any] = {}
        for name in FEW.keys() & fields.keys():
            asked[name] = {"type": "integer", "minimum": min(1, FEW[name]), "maximum": FEW[name]}
        if model is not None:
            for name in CLOSED:
                fields.pop(name, None)
            wanted |= {"model", said}
            asked["model"] = {"type": "string", "enum": [model]}
            if said in SAID:
                asked[said] = {"anyOf": [{"enum": SAID[said]}, {"enum": SAID[said]}, fields[said]]}
        fields.update(asked)
        schema["required"] = sorted({*schema.get("required", ()), *wanted})
    return narrowed


def play(name: str, url: str, description: Path, options: argparse.Namespace) -> Round:
    """One round of schemathesis; raises BenchmarkError when it did not get to its end."""
    mode = name.rpartition("-")[2]
    record = options.save / f"{name}.har"
    record.unlink(missing_ok=True)
    words = ["--url", url, "--mode", mode, "--max-examples", str(options.examples), "--seed", str(options.seed)]
    words += ["--phases", "examples,coverage,fuzzing", "--checks", "not_a_server_error", "--continue-on-failure"]
    words += ["--workers", "1", "--request-timeout", str(REQUEST_SECONDS), "--no-shrink", "--warnings", "off"]
    words += ["--suppress-health-check", "all", "--generation-database", "none", "--report", "har"]
    begin = time.monotonic()
    with (options.save / f"{name}.log").open("w") as log:
        argv = [SCHEMATHESIS, "run", description, *words, "--report-har-path", record, "--no-color"]
        done = subprocess.run(
            argv, stdout=log, stderr=subprocess.STDOUT, timeout=options.seconds, check=False, cwd=options.save
        )
    seconds = time.monotonic() - begin
    if done.returncode not in (0, 1):  # 1: a check failed, which the record shows
        raise BenchmarkError(f"schemathesis exited with {done.returncode}: {log.name}")
    answers: Counter[str] = Counter()
    bad = []
    for entry in json.loads(record.read_bytes())["log"]["entries"]:
        status = int(entry["response"]["status"])
        answers[f"{status // 100}xx" if status > 0 else "none"] += 1
        if status <= 0 or status >= 500:
            bad.append({"request": entry["request"], "status": status, "body": entry["response"].get("content")})
    (options.save / f"{name}.bad.json").write_text(json.dumps(bad, indent=1))
    record.unlink()  # some 100 MB
    return Round(name, dict(sorted(answers.items())), bad, seconds)


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The address of the server: the one that was named, or a demo of our own."""
    if url is not None:
        yield url
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as home:
        own = {"HOME": home, "XDG_STATE_HOME": f"{home}/state", "XDG_CONFIG_HOME": f"{home}/config"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NIMCTL_", "NIM_", "NGC_", "HF_", "XDG_"))}
        environ = {**kept, **own, "NIMCTL_CACHE": f"{home}/cache", "NO_COLOR": "1"}
        nimctl, name = str(Path(sys.executable).with_name("nimctl")), f"fuzz-{port}"
        words = ["--name", name, "--runtime", "process", "--port", str(port)]
        try:
            subprocess.run(
                [nimctl, "run", "demo", *words], env=environ, stdout=sys.stderr, check=True, timeout=START_SECONDS
            )
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([nimctl, "stop", name], env=environ, stdout=sys.stderr, check=False, timeout=120)


def restarts(port: int) -> int:
    """How often the engine was started again, as the server tells."""
    document = ask(port, "/v1/health/startup", seconds=REQUEST_SECONDS).document
    if not isinstance(document, dict):
        raise BenchmarkError("the server does not tell how its start went")
    return int(document["restarts"])


def fuzz(url: str, options: argparse.Namespace) -> int:
    """All rounds; the number of missed bars."""
    port = urlsplit(url).port or 80
    description = ask(port, "/openapi.json", seconds=REQUEST_SECONDS).document
    models = ask(port, "/v1/models", seconds=REQUEST_SECONDS).document
    before = restarts(port)
    missed = 0
    for name in options.rounds:
        path = options.save / f"{name}.openapi.json"
        model = models["data"][0]["id"] if name.startswith("aimed") else None
        path.write_text(json.dumps(bounded(description, model)))
        result = play(name, url, path, options)
        missed += bool(result.bad)
        told = ", ".join(f"{count} {kind}" for kind, count in result.answers.items())
        verdict = "met" if not result.bad else f"MISSED by {len(result.bad)}"
        print(f"{name}: {told} in {result.seconds:.0f} s, bar 0 of 5xx and none without an answer: {verdict}")
        told_to_scripts = {"name": name, "met": not result.bad, "answers": result.answers, "seconds": result.seconds}
        print(json.dumps({**told_to_scripts, "examples": options.examples, "seed": options.seed}), flush=True)
    again = restarts(port) - before
    answered = ask(port, "/v1/chat/completions", chat("hi"), seconds=REQUEST_SECONDS).status == 200
    print(f"engine restarts: {again}, bar 0: {'met' if again == 0 else 'MISSED'}")
    print(f"a chat afterwards is answered: {'met' if answered else 'MISSED'}")
    print(json.dumps({"name": "after", "met": answered and again == 0, "restarts": again, "answered": answered}))
    return missed + (again != 0) + (not answered)


def main() -> int:
    """Exit code 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=40, help="at most so many random requests a route and round")
    parser.add_argument("--seconds", type=float, default=900, help="at most so long a round")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--rounds", type=lambda text: text.split(","), default=list(ROUNDS), help=",".join(ROUNDS))
    parser.add_argument("--save", type=Path, default=ROOT / "build/api_fuzz", help="folder of reports")
    options = parser.parse_args()
    if not SCHEMATHESIS.exists():
        raise BenchmarkError("schemathesis is not there: scripts/bench installs it")
    options.save = options.save.resolve()
    options.save.mkdir(parents=True, exist_ok=True)
    with served(options.url) as url:
        return 1 if fuzz(url, options) else 0


if __name__ == "__main__":
    sys.exit(main())

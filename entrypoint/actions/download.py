"""The action `download-to-cache`: bring a model's weights into the cache and serve nothing.

Needs no GPU, no engine and no front. A branch is looked up anew, which a start never does: this is how a cache moves on
to a newer revision. Options as NIM has them:
https://docs.nvidia.com/nim/large-language-models/2.0.9/reference/cli-reference.html
"""

import argparse
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from entrypoint import settings
from entrypoint.actions import table
from entrypoint.engine import invocation
from entrypoint.engine.drafts import Draft
from entrypoint.engine.model import Model, engine_device, named_model
from entrypoint.observability.journal import Journal
from entrypoint.steps import installed_vllm
from entrypoint.weights import cachefolder, transfers
from entrypoint.weights.checkpoint import Checkpoint
from entrypoint.weights.supplies import about
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Manifest, OnProgress, Stop, from_environment
from nimctl.core.planning.profiles import asked_for
from nimctl.core.stages import PROGRESS_SCHEMA

# A download that is stopped has its partial files on the disk; it may finish its sentence, no more.
_SECONDS_TO_LEAVE = 1.5
_LOOK_EVERY = 0.1  # seconds; the handler of a signal runs in the main thread, which only waits
_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    uri: str | None
    profiles: tuple[str, ...]
    all: bool
    json: bool
    help: bool


@dataclass(frozen=True)
class Result:
    """The checkpoint in the cache (or in its own folder, which is served as it stands); `source` may be shown."""

    source: str
    path: Path
    manifest: Manifest
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The last line of a download that succeeded."""
        return {
            "schema": PROGRESS_SCHEMA,
            "event": "done",
            "source": self.source,
            "revision": self.manifest.revision,
            "path": str(self.path),
            "bytes": self.manifest.total,
            "files": len(self.manifest.files),
            "seconds": round(self.seconds, 3),
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=table.DOWNLOAD,
        add_help=False,
        exit_on_error=False,
        allow_abbrev=False,
        description="Bring a model's weights into the cache (NIM_CACHE_PATH), verified, and serve nothing. "
        "Run it again after an interruption: it goes on where it stopped. Branches are looked up anew.",
        epilog="The model: --model-uri, else NIM_MODEL_PATH, else the weights of the recipe NIM_RECIPE. "
        "Exit codes: 0 done, 2 usage, 4 key or terms, 6 weights or source, 9 cache or disk, 143 or 130 stopped.",
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    parser.add_argument("--model-uri", metavar="URI", help="hf://, ngc://, s3://, gs://, https://, builtin://demo")
    parser.add_argument("--json", action="store_true", help="progress and result as lines of JSON on stdout")
    why = "the checkpoints of these profiles (ids or names) of the recipe; default: NIM_MODEL_PROFILE, else its first"
    parser.add_argument("-p", "--profile", "--profiles", metavar="ID", nargs="+", action="extend", default=[], help=why)
    parser.add_argument("--all", action="store_true", help="every checkpoint of the recipe")
    return parser


def parse(arguments: Sequence[str]) -> Wish:
    """The wish in the words after `download-to-cache`. Raises `usage`."""
    try:
        found, rest = _parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise _usage(str(error)) from error
    if rest:
        raise _usage(f"{rest[0]!r} is no option of it")
    return Wish(found.model_uri or None, tuple(found.profile), found.all, found.json, found.help)


def _usage(cause: str) -> NimctlError:
    return NimctlError(
        "usage",
        f"{table.DOWNLOAD} cannot be called like this",
        cause=cause,
        fix=f"`{table.DOWNLOAD} -h` shows its options.",
    )


def main(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Download as the command line and `environ` say, and tell `output`. The exit code; raises NimctlError."""
    wish = parse(arguments)
    if wish.help:
        output.line(_parser().format_help().rstrip())
        return 0
    given = {**environ, "NIM_MODEL_PATH": wish.uri} if wish.uri else environ
    chosen = settings.read(given)
    journal = Journal(sys.stderr) if wish.json else output
    for each in (output, journal):
        each.configure(level=chosen.log_level, secrets=chosen.secrets)
    for name in chosen.unknown:
        journal.warning("settings", f"{name} means nothing here and is ignored")
    access = from_environment(environ)
    models = wanted(chosen, wish)
    wares: tuple[Draft | Model, ...] = (*drafts_of(chosen, models), *models)
    for what in wares:  # drafts first: what is left of the disk then is for the weights
        lines = transfers.Lines(lambda words: journal.info("weights", words))
        objects = transfers.JsonLines(lambda document: output.line(json.dumps(document)))
        on_progress = objects.see if wish.json else lines.see
        bring = partial(_download, what=what, chosen=chosen, access=access, journal=journal, on_progress=on_progress)
        result = _stoppable(bring)
        if wish.json:
            output.line(json.dumps(result.to_json()))
        else:
            revision = f"revision {result.manifest.revision}, {len(result.manifest.files)} files"
            size = transfers.amount(result.manifest.total)
            journal.info("weights", f"{result.source} is in {result.path}: {revision}, {size}{lines.summary}")
    return 0


def wanted(chosen: settings.Settings, wish: Wish) -> tuple[Model, ...]:
    """The model with each checkpoint to bring; weights that were named are the only ones. Raises `profile-unknown`."""
    model = named_model(chosen)
    asked = wish.profiles or ((chosen.model_profile,) if chosen.model_profile else ())
    if chosen.model_path or not (asked or wish.all):
        return (model,)
    formats = model.recipe.formats if wish.all else [asked_for(model.recipe, one).format for one in asked]
    recipes = [model.recipe.on(name) for name in dict.fromkeys(formats)]
    return tuple(replace(model, recipe=recipe, weights=recipe.weights) for recipe in recipes)


def drafts_of(chosen: settings.Settings, models: Sequence[Model]) -> tuple[Draft, ...]:
    """The draft models that the engine would be told to use beside `models`, each once. Raises `usage`."""
    device = engine_device(chosen, installed_vllm())
    found = ((invocation.draft_of(chosen, model, device), model.weights) for model in models)
    return tuple(dict.fromkeys(draft for draft, weights in found if draft and not draft.is_part_of(weights)))


def _download(
    stop: Stop,
    *,
    what: Model | Draft,
    chosen: settings.Settings,
    access: Access,
    journal: Journal,
    on_progress: OnProgress,
) -> Result:
    began = time.monotonic()
    draft = what if isinstance(what, Draft) else None
    address = what.address if isinstance(what, Draft) else what.weights
    with about(draft):
        if why_not := cachefolder.probe([address], chosen.cache_path, chosen.cache_probe_timeout, access):
            journal.warning("cache", f"the cache is read-only ({why_not}): only what is in it can be had")
        checkpoint = Checkpoint(address, chosen.cache_path, access, stop=stop, refresh=True)
        try:
            path = checkpoint.bring(on_progress)
            return Result(what.source, path, checkpoint.manifest, time.monotonic() - began)
        finally:
            checkpoint.close()


def _stoppable(work: Callable[[Stop], Result]) -> Result:
    """What `work` returns, or its error; `terminated` or `interrupted` within 2 s of a signal, whatever it waits for.

    The work runs in a thread of its own, so that a name server that does not answer cannot hold a signal up.
    """
    stop, signals, outcome = Stop(), [], queue.SimpleQueue[Result | BaseException]()

    def on_signal(number: int, _: object) -> None:
        signals.append(number)
        stop.set()

    def body() -> None:
        try:
            outcome.put(work(stop))
        except BaseException as error:  # handed to the waiting thread
            outcome.put(error)

    for number in _STOPS:
        signal.signal(number, on_signal)
    worker = threading.Thread(target=body, name="download", daemon=True)
    worker.start()
    while worker.is_alive() and not signals:
        worker.join(_LOOK_EVERY)
    if signals:
        worker.join(_SECONDS_TO_LEAVE)
        raise _stopped(signals[0])
    ended = outcome.get()
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _stopped(number: int) -> NimctlError:
    return NimctlError(
        "terminated" if number == signal.SIGTERM else "interrupted",
        "the download was stopped",
        cause=f"this process was sent {signal.Signals(number).name}",
        fix="Run it again: it goes on where it stopped.",
    )

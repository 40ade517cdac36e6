"""What the actions that move weights have in common: options, what they work with, progress, and an end within 2 s."""

import argparse
import json
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from entrypoint import settings
from entrypoint.actions.own import with_own_model
from entrypoint.observability.journal import Journal
from entrypoint.weights import transfers
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, OnProgress, Stop, from_environment
from nimctl.core.stages import PROGRESS_SCHEMA

T = TypeVar("T")
# What is stopped has its partial files on the disk; it may finish its sentence, no more.
_SECONDS_TO_LEAVE = 1.5
_LOOK_EVERY = 0.1  # seconds; the handler of a signal runs in the main thread, which only waits
_STOPS = (signal.SIGTERM, signal.SIGINT)
_MODEL = (
    "The model: --model-uri, else NIM_MODEL_PATH, else the weights of the recipe NIM_RECIPE, else this image's own\n"
    "model, whose profiles model-manifest prints."
)
_CODES = "Exit codes: 0 done, 2 usage, 4 key or terms, 6 weights or source, 9 cache or disk, 143 or 130 stopped."


class Options:
    """The command line of the action `name`: `-h`, `--json`, and which model or models it is about."""

    def __init__(self, name: str, description: str, example: str, *uri_options: str) -> None:
        self.name = name
        self.parser = argparse.ArgumentParser(
            prog=name,
            add_help=False,
            exit_on_error=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description=description,
            epilog=f"example: {example}\n\n{_MODEL}\n{_CODES}",
        )
        add = self.parser.add_argument
        add("-h", "--help", action="store_true", help="show this text")
        add(
            "--model-uri",
            *uri_options,
            dest="model_uri",
            metavar="URI",
            help="hf://, ngc://, s3://, gs://, https://, builtin://demo",
        )
        add("--json", action="store_true", help="progress and result as lines of JSON on stdout")

    def several_models(self) -> None:
        """Let profiles name more than one checkpoint."""
        why = "the checkpoints of these profiles (ids or names) of the recipe; default: NIM_MODEL_PROFILE, or its first"
        several: Any = {"metavar": "ID", "nargs": "+", "action": "extend", "default": [], "help": why}
        self.parser.add_argument("-p", "--profile", "--profiles", **several)
        self.parser.add_argument("--all", action="store_true", help="every checkpoint of the recipe")

    def one_model(self) -> None:
        """Let a profile name the one checkpoint."""
        why = "the checkpoint of this profile (id or name) of the recipe; default: NIM_MODEL_PROFILE, else its first"
        self.parser.add_argument("-p", "--profile", metavar="ID", help=why)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The words behind the action. Raises `usage`."""
        try:
            found, rest = self.parser.parse_known_args(list(arguments))
        except argparse.ArgumentError as error:
            raise self.wrong(str(error)) from error
        if rest:
            raise self.wrong(f"{rest[0]!r} is no option of it")
        return found

    def wrong(self, cause: str) -> NimctlError:
        """The error for a command line that cannot be meant."""
        return NimctlError(
            "usage", f"{self.name} cannot be called like this", cause=cause, fix=f"`{self.name} -h` shows its options."
        )

    def help(self) -> str:
        """What `-h` prints."""
        return self.parser.format_help().rstrip()


@dataclass(frozen=True)
class Watcher:
    """Where the progress of one step goes, and what to say of it when it has ended."""

    on_progress: OnProgress
    lines: transfers.Lines

    @property
    def summary(self) -> str:
        """Such as `: 595.1 GB after 512 s`."""
        return self.lines.summary


@dataclass(frozen=True)
class Desk:
    """What an action works with. Lines for machines go to `output`, and then those for people to `journal`: stderr."""

    chosen: settings.Settings
    access: Access
    output: Journal
    journal: Journal
    json: bool

    def watcher(self, stage: str = "weights") -> Watcher:
        """A fresh one, for one model."""
        lines = transfers.Lines(lambda words: self.journal.info(stage, words))
        objects = transfers.JsonLines(lambda document: self.output.line(json.dumps(document)))
        return Watcher(objects.see if self.json else lines.see, lines)

    def done(self, words: str, document: Mapping[str, Any], *, stage: str = "weights") -> None:
        """Tell the result of one model: in words, or as a document (`event: done`)."""
        if self.json:
            self.output.line(json.dumps({"schema": PROGRESS_SCHEMA, "event": "done", **document}))
        else:
            self.journal.info(stage, words)


def desk(environ: Mapping[str, str], wish: argparse.Namespace, output: Journal) -> Desk:
    """The settings, with the model that the command line names before the one of `environ`.

    Profiles alone are those of the image's own model. Raises as `settings.read`.
    """
    if wish.model_uri:
        environ = {**environ, "NIM_MODEL_PATH": wish.model_uri}
    elif wish.profile or getattr(wish, "all", False):
        environ = with_own_model(environ)
    chosen, machine = settings.read(environ), bool(wish.json)
    journal = Journal(sys.stderr) if machine else output
    output.configure(level=chosen.log_level, secrets=chosen.secrets)
    journal.configure(level=chosen.log_level, secrets=chosen.secrets, as_json=chosen.jsonl)
    for sentence in chosen.unknown:
        journal.warning("settings", sentence)
    return Desk(chosen, from_environment(environ), output, journal, machine)


def stoppable(work: Callable[[Stop], T], what: str = "download") -> T:
    """What `work` returns, or its error; `terminated` or `interrupted` within 2 s of a signal, whatever it waits for.

    The work runs in a thread of its own, so that a name server that does not answer cannot hold a signal up.
    """
    stop, signals, outcome = Stop(), [], queue.SimpleQueue[T | BaseException]()

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
    worker = threading.Thread(target=body, name=what, daemon=True)
    worker.start()
    while worker.is_alive() and not signals:
        worker.join(_LOOK_EVERY)
    if signals:
        worker.join(_SECONDS_TO_LEAVE)
        raise _stopped(signals[0], what)
    ended = outcome.get()
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _stopped(number: int, what: str) -> NimctlError:
    return NimctlError(
        "terminated" if number == signal.SIGTERM else "interrupted",
        f"the {what} was stopped",
        cause=f"this process was sent {signal.Signals(number).name}",
        fix="Run it again: it goes on where it stopped.",
    )

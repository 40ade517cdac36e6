"""The action `mirror`: a model of the cache, written into S3 or GCS for hosts that have no other source.

What is written is what a start with `NIM_REPOSITORY_OVERRIDE` of the same value reads; where NIM documents that layout:
https://docs.nvidia.com/nim/large-language-models/latest/nim-repository-override.html
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from entrypoint.actions import table
from entrypoint.actions.bringing import Brought, bring, drafts_of, wanted
from entrypoint.actions.doing import Desk, Options, desk, stoppable
from entrypoint.actions.download import document
from entrypoint.engine.drafts import Draft
from entrypoint.engine.model import Model
from entrypoint.observability.journal import Journal
from entrypoint.weights.transfers import amount
from nimctl.core.fetch import mirroring


def options() -> Options:
    """The command line."""
    line = Options(
        table.MIRROR,
        "Copy a model from the cache (NIM_CACHE_PATH) to S3 or GCS; what the cache lacks is brought first.\n"
        "A start with NIM_REPOSITORY_OVERRIDE=DESTINATION and the same model then finds it there. What is there\n"
        "already is not sent again. Keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the like, or\n"
        "GOOGLE_APPLICATION_CREDENTIALS. With HF_HUB_OFFLINE=1 the model comes from the cache alone.",
        "mirror s3://bucket --model-uri hf://org/name",
    )
    line.several_models()
    line.parser.add_argument(
        "destination", nargs="?", metavar="DESTINATION", help="s3://bucket[/folder] or gs://bucket"
    )
    return line


def main(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Mirror what the command line and `environ` say, and tell `output`. The exit code; raises NimctlError."""
    line = options()
    wish = line.read(arguments)
    if wish.help:
        output.line(line.help())
        return 0
    if not wish.destination:
        raise line.wrong("no destination is named")
    place = desk(environ, wish, output)
    if (place.access.override or "").rstrip("/") == wish.destination.rstrip("/"):
        place = replace(place, access=replace(place.access, override=None))  # it is to be filled, not to be read
    models = wanted(place.chosen, wish.profile, everything=wish.all)
    wares: tuple[Draft | Model, ...] = (*drafts_of(place.chosen, models), *models)
    for what in wares:  # before anything is fetched
        mirroring.place_of(what.address if isinstance(what, Draft) else what.weights, wish.destination)
    for what in wares:
        _mirror(place, bring(place, what, refresh=False), wish.destination)
    return 0


def _mirror(place: Desk, found: Brought, destination: str) -> None:
    began = time.monotonic()
    watcher = place.watcher("mirror")
    work = partial(
        mirroring.mirror,
        found.address,
        found.manifest,
        found.path,
        destination,
        access=place.access,
        on_progress=watcher.on_progress,
    )
    done = stoppable(lambda stop: work(stop=stop), "upload")
    there = f", {done.kept} were there already" if done.kept else ""
    words = f"{found.source} is in {done.address}: {done.sent} of {done.files} files sent, {amount(done.bytes)}{there}"
    seconds = round(found.seconds + time.monotonic() - began, 3)
    more = {"path": str(found.path), "address": done.address, "sent": done.sent, "kept": done.kept, "seconds": seconds}
    place.done(words, {**document(found), **more}, stage="mirror")

"""The weights of NVIDIA's images: fetched by the image's own downloader, in a container that ends with it.

Which files are needed depends on the GPUs, and only the image knows its profiles:
https://docs.nvidia.com/nim/large-language-models/latest/reference/cli-reference.html
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli import acquire, launching
from nimctl.core.errors import NimctlError
from nimctl.launch import handover, progress
from nimctl.launch.model import ExactImage
from nimctl.render import size

if TYPE_CHECKING:
    from nimctl.cli.acquire import Held
    from nimctl.cli.config import Config
    from nimctl.launch.docker import DockerRuntime
    from nimctl.launch.runtime import RunHandle
    from nimctl.render import Output, TransferView

ACTION = "download-to-cache"
# What the downloader complains of, and what it means. Its sentences are from NVIDIA's pages and issues:
# https://github.com/NVIDIA/nim-deploy/issues/92 https://docs.nvidia.com/nim-operator/3.0.0/release-notes.html
_AGAIN = "then run the same command: what is in the cache is kept."
_SAID = (
    ("no space left|os error 28", "disk-full", "the cache's filesystem is full", f"Free space there, {_AGAIN}"),
    (
        r"\b40[13]\b|unauthori[sz]ed|forbidden|authentication error",
        "key-refused",
        "NVIDIA's catalogue refuses the key",
        f"Use a Personal API Key with the service NGC Catalog in NGC_API_KEY, {_AGAIN}",
    ),
    (
        "match a profile|no compatible profile|no matching profile|0 compatible",
        "profile-unfit",
        "the image has no profile for these GPUs",
        "Look at its profiles (`docker run --rm IMAGE list-model-profiles`) and at NVIDIA's support matrix.",
    ),
    (
        "error sending request|dns error|connection refused|timed out|name resolution",
        "weights-source-unreachable",
        "the downloader in the container cannot reach NVIDIA's catalogue",
        f"Let containers reach api.ngc.nvidia.com, authn.nvidia.com and xfiles.ngc.nvidia.com, {_AGAIN}",
    ),
)
_OTHER = (
    "container-died",
    "the image's own downloader gave up; its last words are above",
    f"Correct what the lines above name, {_AGAIN}",
)
_LOOK_SECONDS = 1.0
# Seconds for the downloader to put its state away at Ctrl-C.
_STOP_SECONDS = 10


def bring(model: str | None, image: str | None, config: Config, out: Output) -> tuple[Held, dict[str, object]]:
    """Pull the image and run its `download-to-cache` once, with the key, the cache and the GPUs that a run would have.

    Returns the image and what the document tells of the weights. The container is removed in any case. Raises as a
    run does, and what the container died of.
    """
    from nimctl.launch.docker import DockerRuntime

    prepared = launching.prepare(launching.Asked(model, image=image), config, out)
    assert prepared.choice is not None and prepared.plan.runtime == "docker"
    runtime = DockerRuntime.connect()
    held = acquire.pull_image(prepared.choice.reference, runtime.engine, out, config)
    launching.make_cache(config.cache, out)
    plan = replace(
        prepared.plan,
        name=f"{prepared.plan.name}-weights",
        argv=(ACTION,),
        port=replace(prepared.plan.port, host=0),  # any free one: nothing listens, and a server may have the other
        exact=ExactImage(held.id, held.identity),
    )
    secrets = {name: key for name in plan.secret_names if (key := handover.secret(name, os.environ))}
    before = bytes_below(config.cache)
    handle = runtime.start(plan, secrets)
    try:
        with out.transfer(f"weights of {prepared.target.recipe.name}, by {ACTION} of its image") as view:
            _follow(runtime, handle, config.cache, before, prepared.target.recipe.weights_bytes, view, out)
        state = runtime.state(handle)
        if state.exit_code != 0:
            raise failed(progress.death(runtime, handle, state, None), held.identity.reference, state.exit_code)
    finally:
        runtime.stop(handle, timeout=_STOP_SECONDS)
    new = max(0, bytes_below(config.cache) - before)
    out.text(f"weights by {held.identity.reference}: {size(new)} new in {config.cache}")
    out.result(str(config.cache))
    return held, {"source": held.identity.reference, "by": ACTION, "folder": str(config.cache), "new_bytes": new}


def failed(error: NimctlError, reference: str, code: int | None) -> NimctlError:
    """What the container died of: `error` where a server would have died of it too, else what a downloader says."""
    if error.id != "container-died":
        return error
    said = "\n".join(error.evidence)
    error_id, cause, fix = next((found for pattern, *found in _SAID if re.search(pattern, said, re.IGNORECASE)), _OTHER)
    message = f"{ACTION} of {reference} ended with exit code {code}"
    return NimctlError(error_id, message, cause=cause, fix=fix, evidence=error.evidence)


def _follow(
    runtime: DockerRuntime,
    handle: RunHandle,
    cache: Path,
    before: int,
    total: int | None,
    view: TransferView,
    out: Output,
) -> None:
    """Tell of the last line of its log and of how the cache grows until the container ends."""
    last = [""]

    def read() -> None:
        with suppress(NimctlError):  # a daemon that goes away is found out by the question for the state
            for line in runtime.logs(handle, follow=True):
                last[0] = line.strip() or last[0]

    reader = threading.Thread(target=read, name="weights-log", daemon=True)
    reader.start()
    while runtime.state(handle).alive:
        reader.join(_LOOK_SECONDS)
        view.told("weights", max(0, bytes_below(cache) - before), total, last[0])
    reader.join(_LOOK_SECONDS)
    if last[0]:
        out.text(last[0], style="dim")


def bytes_below(folder: Path) -> int:
    """The bytes of all files below `folder`; those that vanish meanwhile, or may not be seen, count nothing."""
    found = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(base, name)).st_size  # noqa: PTH118 (thousands of files)
    return found

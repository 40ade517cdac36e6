"""Looking at a run for `nimctl drift`: its container, its server, and how its engine was started."""

from __future__ import annotations

import json
import shlex
from itertools import islice
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.logshape import ENGINE_STARTS, said
from nimctl.launch.model import LOCK_LABEL
from nimctl.launch.progress import document
from nimctl.launch.runtime import RunHandle, Runtime
from nimctl.lock.drift import Confinement, Seen
from nimctl.lock.model import LockedContainer

# The engine is started before any request is answered, so its line is among the first.
_LINES = 20_000


def see(runtime: Runtime, handle: RunHandle) -> Seen:
    """The run as it is. Raises `usage` for a process, `run-unknown` for a container that is gone."""
    from nimctl.launch.docker import DockerRuntime
    from nimctl.launch.docker.seeing import container_facts

    if not isinstance(runtime, DockerRuntime):
        raise NimctlError(
            "usage",
            f"{handle.name} is a process and was started from no lock",
            cause="only runs in docker are locked",
            fix="Start it in docker: `nimctl run --locked`.",
        )
    found = runtime.engine.inspect(handle.id)
    if found is None:
        raise NimctlError(
            "run-unknown", f"{handle.name} is gone", cause="it was removed meanwhile", fix="`nimctl ps` lists the runs."
        )
    facts = container_facts(found, runtime.engine.inspect_image_raw(str(found.get("Image"))))
    alive = runtime.state(handle).alive
    return Seen(
        image=facts.image,
        labels=facts.labels,
        variables=facts.variables,
        given=facts.given,
        argv=facts.argv,
        image_argv=facts.image_argv,
        confinement=Confinement(
            LockedContainer(
                facts.cap_drop, facts.no_new_privileges, facts.read_only, dict(facts.tmpfs), facts.shm_bytes
            ),
            facts.beyond,
        ),
        engine=_engine(runtime, handle),
        metadata=_ask(handle, "/v1/metadata") if alive else None,
        manifest=_ask(handle, "/v1/manifest") if alive else None,
        started_from=facts.labels.get(LOCK_LABEL),
    )


def _ask(handle: RunHandle, path: str) -> dict[str, Any] | None:
    status, body = document(handle, path)
    if status != 200:
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _words(line: str) -> tuple[str, ...]:
    """The words of a command; earlier images wrote them without quotes, so that JSON among them stands bare."""
    return tuple(line.split() if '"' in line and "'" not in line else shlex.split(line))


def _engine(runtime: Runtime, handle: RunHandle) -> tuple[str, ...] | None:
    """The words that the engine was started with, by the run's log, which outlives its server; None without them."""
    lines = runtime.logs(handle)
    try:
        for line in islice(lines, _LINES):
            for message in said(line):
                if message.startswith(ENGINE_STARTS):
                    return _words(message.removeprefix(ENGINE_STARTS))
    except (NimctlError, ValueError):
        return None
    finally:
        if hasattr(lines, "close"):
            lines.close()
    return None

"""The stage `front`: until nginx answers, and what the engine says of its API once it can."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from entrypoint.front import Front, describing, documents
from entrypoint.processes.child import Child
from entrypoint.run import Run
from entrypoint.stages.hardware import installed_vllm
from entrypoint.unixhttp import UnreachableError, get_tcp
from nimctl import __version__
from nimctl.core.errors import NimctlError

_FRONT_SECONDS = 10.0
# How long the engine's front takes to hand the warm-up's requests to its core.
_HEAD_START = 1.0


def await_front(front: Front, child: Child, tidy: Callable[[str], str]) -> None:
    """Return when the front answers on the public port; `tidy` makes its lines fit to be shown. Raises `front-died`."""
    deadline = time.monotonic() + _FRONT_SECONDS
    while time.monotonic() < deadline and child.exit is None:
        try:
            if get_tcp(front.client_host, front.port, "/v1/health/live", timeout=1.0).status == 200:
                return
        except UnreachableError:
            time.sleep(0.005)
    child.finish_output(0.5)
    lines = [tidy(line) for line in tuple(child.lines) if line][-5:]
    raise NimctlError(
        "front-died",
        "nginx does not answer on the public port",
        cause=lines[-1] if lines else "it wrote nothing",
        fix="Read its lines above; NIM_SERVER_HOST must be an address of this machine.",
        evidence=tuple(lines),
    )


def describe_api(run: Run, front: Front, warm: Event) -> Thread:
    """Have the engine describe its API, in the thread that is returned, beside the warm-up.

    That stops the process which takes requests for about a second, so the warm-up's requests go first: while its core
    compiles for them, that process has nothing to do. `warm` says that they are answered.
    """

    def describe() -> None:
        warm.wait(_HEAD_START)
        if (problem := describing.publish(front, run.state)) is not None:
            run.journal.warning("front", problem)

    thread = Thread(target=describe, name="describe-api", daemon=True)
    thread.start()
    return thread


def version() -> dict[str, Any]:
    """The document of `/v1/version`."""
    return documents.version(__version__, installed_vllm())

"""The crash report: what ended, how, with which last words, and how full the memories were at that moment."""

import json
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from entrypoint.observability.journal import Journal
from entrypoint.processes.child import Child
from entrypoint.processes.oom import oom_kills
from entrypoint.state import State, write_atomically
from nimctl.core.errors import NimctlError
from nimctl.core.gpus.nvml import read_inventory
from nimctl.core.meminfo import host_memory

SCHEMA = "nimctl.crash/1"
# A driver that hangs is one of the things that end an engine: it gets this long to tell of its memory.
_NVML_SECONDS = 2.0


def look_at_memory() -> Callable[[], dict[str, Any]]:
    """Begin to look; what is returned waits for the answer: bytes of the host's memory and of each GPU's, and how often
    the kernel killed in our control group. `gpus` is None where the driver does not answer in time.
    """
    answer: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()
    deadline = time.monotonic() + _NVML_SECONDS
    host = host_memory()

    def look() -> None:
        found = read_inventory().gpus
        answer.put([{"index": g.index, "total": g.memory_total, "free": g.memory_free} for g in found])

    def told() -> dict[str, Any]:
        gpus = None
        with suppress(queue.Empty):
            gpus = answer.get(timeout=max(0.01, deadline - time.monotonic()))
        memory = {"total": host.total, "available": host.available, "oom_kills": oom_kills()}
        return {"host": memory, "gpus": gpus}

    threading.Thread(target=look, name="crash-gpus", daemon=True).start()
    return told


def record(
    error: NimctlError,
    child: Child | None,
    stage: str | None,
    journal: Journal,
    *,
    restarts: int,
    memories: dict[str, Any],
) -> dict[str, Any]:
    """The report as a document: the error, the process with its last lines where one died, the memories.

    `restarts` counts those of the engine before. Holds no secret that the journal knows.
    """
    process = None
    if child is not None:
        process = {
            "name": child.name,
            "code": child.exit.code if child.exit else None,
            "signal": child.exit.text if child.exit and child.exit.signal else None,
            "last_lines": [journal.tidy(line) for line in tuple(child.lines)],
        }
    document = json.loads(journal.clean(json.dumps(error.to_json())))
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "schema": SCHEMA,
        "at": at,
        "stage": stage,
        "error": document,
        "process": process,
        "memory": memories,
        "restarts": restarts,
    }


def write(state: State, document: dict[str, Any]) -> None:
    """Leave it for whoever looks into the state folder afterwards."""
    write_atomically(state.crash, json.dumps(document))


def in_line(document: dict[str, Any]) -> dict[str, Any]:
    """What of it belongs on the log's last line: all but the error, which is there, and the lines, which were."""
    process = document["process"]
    short = None if process is None else {k: v for k, v in process.items() if k != "last_lines"}
    return {"stage": document["stage"], "process": short, "memory": document["memory"]}

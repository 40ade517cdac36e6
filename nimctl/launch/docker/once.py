"""One container, run to its end and removed, whatever happens: the acting part of the probe."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.docker.engine import Engine
from nimctl.launch.model import GpuRequest, LaunchPlan

LABEL = "io.nimctl.probe"
# Seconds that one answer of the daemon may take; a healthy one creates and starts a container in less than one.
_ANSWER = 15.0
# Seconds in which a container may still appear whose creation was interrupted.
_LATE = 3.0


def probe_body(plan: LaunchPlan, gpu: GpuRequest, argv: Sequence[str], *, cache: bool) -> dict[str, Any]:
    """The request of a run of this plan, with another command and way to the GPUs, and without what a probe must not
    have: keys, ports, a network, the labels of a run and a health check. Without `cache` no folder is mounted, because
    Docker would make a folder that is missing.
    """
    body = container_body(replace(plan, gpu=gpu), {})
    host = {name: value for name, value in body["HostConfig"].items() if name not in ("PortBindings", "Mounts")}
    if not cache:
        host.pop("Binds")
    rest = {name: value for name, value in body.items() if name not in ("ExposedPorts", "Cmd", "Labels")}
    return rest | {
        "Entrypoint": list(argv[:1]),
        "Cmd": list(argv[1:]),
        "Labels": {LABEL: plan.name},
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": 0,
        "HostConfig": {**host, "NetworkMode": "none"},
    }


def dry_run_body(plan: LaunchPlan, *, cache: bool) -> dict[str, Any]:
    """The request of a container that tells what a start of this plan would do, and does none of it.

    It has what decides (variables, arguments, GPUs, the weights that are here) and none of the keys, no port and no
    network.
    """
    body = probe_body(plan, plan.gpu, ("",), cache=cache)
    body.pop("Entrypoint")
    return body | {"Cmd": ["--dry-run", *plan.argv], "Env": [v for v in body["Env"] if "_FILE=" not in v]}


def run_once(engine: Engine, body: Mapping[str, Any], timeout: float, *, only_stdout: bool = False) -> tuple[int, str]:
    """Run a container to its end: its exit code and its output. It is removed in any case, also at Ctrl-C.

    Raises `probe-failed` when it does not end within `timeout` seconds, and `docker-hangs` when it is the daemon that
    does not answer.
    """
    name = f"nimctl-probe-{secrets.token_hex(8)}"
    usual, engine.api.timeout = engine.api.timeout, _ANSWER
    container, refused, done = None, False, False
    try:
        container = engine.create(name, body)
        engine.start(container)
        code = engine.wait(container, timeout)
        if code is None:
            raise _too_slow(engine, container, timeout)
        output = "\n".join(engine.logs(container, only_stdout=only_stdout))
        done = True
        return code, output
    except NimctlError as error:
        refused = error.id != "docker-hangs"
        if refused:
            raise
        engine.api.timeout = 1.0  # it will not answer the removal either
        left = f"the container {name} may be left: docker rm -f {name}"
        raise NimctlError(
            error.id, error.message, cause=error.cause, fix=error.fix, evidence=(*error.evidence, left)
        ) from error
    finally:
        try:
            if container is not None:
                engine.remove(container)
            elif not refused:
                _remove_late(engine, name)
        except NimctlError:
            if done:
                raise  # else what ended the probe is the news
        finally:
            engine.api.timeout = usual


def _remove_late(engine: Engine, name: str) -> None:
    """Remove a container whose creation was interrupted: it may be there, or appear a moment later."""
    until = time.monotonic() + _LATE
    with suppress(NimctlError):
        while time.monotonic() < until:
            found = engine.inspect(name)
            if found is not None:
                engine.remove(str(found["Id"]))
                return
            time.sleep(0.1)


def _too_slow(engine: Engine, container: str, timeout: float) -> NimctlError:
    """The error of a container that does not end; the daemon's own where it is the daemon that does not answer."""
    try:
        engine.inspect(container)
    except NimctlError as error:
        return error
    said = list(engine.logs(container, tail=3))
    return NimctlError(
        "probe-failed",
        f"the container did not end within {timeout:g} s",
        cause="it hangs, as programs do when a GPU or its driver does not answer",
        fix="Run `nvidia-smi` on the host; look at `sudo dmesg` for NVRM and Xid lines.",
        evidence=said,
    )

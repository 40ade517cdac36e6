"""What the Docker daemon is like, for host facts: one look with a bound on the whole of it.

Shapes: https://docs.docker.com/reference/api/engine/version/v1.51/#tag/System/operation/SystemInfo and SystemVersion.
"""

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nimctl.core.facts import ContainerFacts, DockerFacts, DockerKind, DockerState
from nimctl.launch.docker.client import DEFAULT_ENDPOINT, endpoint, open_client
from nimctl.launch.docker.errors import Doing, id_of, translate
from nimctl.launch.docker.running import look_at_running

_STATES: dict[str, DockerState] = {
    "docker-missing": "missing",
    "docker-permission": "permission",
    "docker-hangs": "hangs",
}
# Of the time given: what one read may take. The rest is for starting, and for a daemon that drips.
_SHARE = 0.8
# Where Canonical's snap of Docker keeps its data: https://github.com/canonical/docker-snap
_SNAP_DATA = "/var/snap/docker/"
_CONTAINERD_STORE = "io.containerd.snapshotter.v1"


def describe_daemon(timeout: float = 5.0, *, containers: bool = True) -> DockerFacts:
    """The daemon of this user's environment. Never raises and returns within `timeout` seconds.

    `state` tells apart: no socket, a socket this user may not open, nobody behind it, and a daemon that accepts the
    connection and then says nothing. Without `containers` the running ones are not looked at.
    """
    started = time.monotonic()
    found: list[DockerFacts] = []
    running: list[tuple[ContainerFacts, ...]] = []

    def ask_daemon() -> None:
        _look(timeout * _SHARE, started, found, running if containers else None)

    # A thread and not an alarm: the doctor asks from a thread of its own. Left behind, it ends with the process.
    thread = threading.Thread(target=ask_daemon, name=ask_daemon.__name__, daemon=True)
    thread.start()
    thread.join(timeout)
    if not found:
        return DockerFacts("hangs", f"no complete answer within {timeout:g} s")
    return replace(found[0], containers=running[0] if running else None)


def _look(
    timeout: float, started: float, found: list[DockerFacts], running: list[tuple[ContainerFacts, ...]] | None
) -> None:
    """Put the daemon's facts into `found` as soon as they are known, and the containers into `running` after that."""
    where = DEFAULT_ENDPOINT
    try:
        where = endpoint()
        _knock(where, timeout)
        client = open_client(timeout)
        try:
            found.append(_facts(where, client.version(api_version=False), client.info()))
            if running is not None:
                client.timeout = timeout / 4  # one that hangs while it is inspected costs this much
                running.append(look_at_running(client, started + timeout / 2))
        finally:
            client.close()
    except Exception as error:
        if found:
            return  # a daemon that describes itself and does not list containers is described without them
        problem = translate(error, Doing("asking the daemon"))
        state = _STATES.get(id_of(error, Doing("")), "unreachable")
        found.append(DockerFacts(state, problem.cause, endpoint=where))


def _knock(where: str, timeout: float) -> None:
    """Connect to a Unix socket and hang up: the plain reason of a failure, before docker-py wraps it three times."""
    if where.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(timeout)
            visitor.connect("/" + where.removeprefix("unix://").lstrip("/"))


def _facts(where: str, version: Mapping[str, Any], info: Mapping[str, Any]) -> DockerFacts:
    security = tuple(str(option) for option in _list(info.get("SecurityOptions")))
    parts = [_table(part) for part in _list(version.get("Components"))]
    components = {str(part.get("Name", "")): str(part.get("Version", "")) for part in parts}
    paths = {str(name): _program(runtime) for name, runtime in _table(info.get("Runtimes")).items()}
    programs = {name: path for name, path in paths.items() if path}
    return DockerFacts(
        "ok",
        endpoint=where,
        kind=_kind(version, info, components),
        version=_text(version.get("Version")),
        api_version=_text(version.get("ApiVersion")),
        runc=components.get("runc") or None,
        containerd=components.get("containerd") or None,
        rootless=any("rootless" in option for option in security),
        storage_driver=_text(info.get("Driver")),
        containerd_store=_containerd_store(info),
        data_root=_text(info.get("DockerRootDir")),
        runtimes=tuple(sorted(paths)),
        runtime_paths=programs or None,
        missing_runtimes=tuple(sorted(n for n, p in programs.items() if where.startswith("unix:") and _missing(p))),
        default_runtime=_text(info.get("DefaultRuntime")),
        cdi_spec_dirs=tuple(str(folder) for folder in _list(info.get("CDISpecDirs"))) or None,
        cdi_devices=_cdi_devices(info),
        cgroup_driver=_text(info.get("CgroupDriver")),
        cgroup_version=_text(info.get("CgroupVersion")),
        security_options=security,
        architecture=_text(info.get("Architecture")),
        operating_system=_text(info.get("OperatingSystem")),
        live_restore=_truth(info.get("LiveRestoreEnabled")),
        pids_limit=_truth(info.get("PidsLimit")),
        http_proxy=bool(info.get("HttpProxy") or info.get("HttpsProxy")) if "HttpProxy" in info else None,
    )


def _kind(version: Mapping[str, Any], info: Mapping[str, Any], components: Mapping[str, str]) -> DockerKind | None:
    """Who answers. Podman names itself among the components of its Docker-compatible API:
    https://github.com/containers/podman/blob/v5.4.0/pkg/api/handlers/compat/version.go
    """
    if any(name.startswith("Podman") for name in components):
        return "podman"
    platform = str(_table(version.get("Platform")).get("Name", ""))
    if platform.startswith("Docker Desktop") or info.get("OperatingSystem") == "Docker Desktop":
        return "desktop"
    if str(info.get("DockerRootDir", "")).startswith(_SNAP_DATA):
        return "snap"
    if not components:
        return None
    return "engine" if "Engine" in components else "other"


def _containerd_store(info: Mapping[str, Any]) -> bool | None:
    """Whether images lie in containerd: https://docs.docker.com/engine/storage/containerd/"""
    status = info.get("DriverStatus")
    if status is None:
        return None
    pairs = [pair for pair in _list(status) if isinstance(pair, list)]
    return any(len(pair) > 1 and pair[0] == "driver-type" and pair[1] == _CONTAINERD_STORE for pair in pairs)


def _cdi_devices(info: Mapping[str, Any]) -> tuple[str, ...] | None:
    devices = info.get("DiscoveredDevices")
    if devices is None:  # an empty list is left out as well, so it cannot be told from an old engine
        return None
    named = [_table(device) for device in _list(devices)]
    return tuple(sorted(str(device.get("ID", "")) for device in named if device.get("Source") == "cdi"))


def _program(runtime: Any) -> str:
    """The program of a runtime; runtimes that are containerd shims have a type instead."""
    return str(runtime.get("path") or runtime.get("runtimeType") or "") if isinstance(runtime, Mapping) else ""


def _missing(program: str) -> bool:
    """A bare name is looked for on the daemon's PATH, which is not known here."""
    try:
        return program.startswith("/") and not Path(program).exists()
    except OSError:
        return False  # a folder that this user may not look into


def _text(value: Any) -> str | None:
    """What should be a text, as text: a daemon of another make may answer with a number."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "" else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

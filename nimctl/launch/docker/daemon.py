"""What the Docker daemon is like, for host facts: one look with a bound on the whole of it.

Shapes: https://docs.docker.com/reference/api/engine/version/v1.51/#tag/System/operation/SystemInfo and SystemVersion.
"""

import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nimctl.core import command
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
    buildx: list[str | None] = [None]

    def ask_daemon() -> None:
        _look(timeout * _SHARE, started, found, running if containers else None)

    def ask_buildx() -> None:
        buildx[0] = _buildx(timeout * _SHARE)

    # Threads and not an alarm: the doctor asks from a thread of its own. Left behind, they end with the process.
    threads = [threading.Thread(target=t, name=t.__name__, daemon=True) for t in (ask_daemon, ask_buildx)]
    for thread in threads:
        thread.start()
    threads[0].join(timeout)
    threads[1].join(timeout * (1 - _SHARE))
    if not found:
        return DockerFacts("hangs", f"no complete answer within {timeout:g} s", buildx=buildx[0])
    return replace(found[0], buildx=buildx[0], containers=running[0] if running else None)


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
    security = tuple(info.get("SecurityOptions") or ())
    components = {str(c.get("Name", "")): str(c.get("Version", "")) for c in version.get("Components") or ()}
    paths = {str(name): _program(runtime) for name, runtime in (info.get("Runtimes") or {}).items()}
    programs = {name: path for name, path in paths.items() if path}
    return DockerFacts(
        "ok",
        endpoint=where,
        kind=_kind(version, info, components),
        version=version.get("Version"),
        api_version=version.get("ApiVersion"),
        runc=components.get("runc") or None,
        containerd=components.get("containerd") or None,
        rootless=any("rootless" in option for option in security),
        storage_driver=info.get("Driver"),
        containerd_store=_containerd_store(info),
        data_root=info.get("DockerRootDir"),
        runtimes=tuple(sorted(paths)),
        runtime_paths=programs or None,
        missing_runtimes=tuple(sorted(n for n, p in programs.items() if where.startswith("unix:") and _missing(p))),
        default_runtime=info.get("DefaultRuntime"),
        cdi_spec_dirs=tuple(info.get("CDISpecDirs") or ()) or None,
        cdi_devices=_cdi_devices(info),
        cgroup_driver=info.get("CgroupDriver"),
        cgroup_version=info.get("CgroupVersion"),
        security_options=security,
        architecture=info.get("Architecture"),
        operating_system=info.get("OperatingSystem"),
        live_restore=info.get("LiveRestoreEnabled"),
        pids_limit=info.get("PidsLimit"),
        http_proxy=bool(info.get("HttpProxy") or info.get("HttpsProxy")) if "HttpProxy" in info else None,
    )


def _kind(version: Mapping[str, Any], info: Mapping[str, Any], components: Mapping[str, str]) -> DockerKind | None:
    """Who answers. Podman names itself among the components of its Docker-compatible API:
    https://github.com/containers/podman/blob/v5.4.0/pkg/api/handlers/compat/version.go
    """
    if any(name.startswith("Podman") for name in components):
        return "podman"
    platform = str((version.get("Platform") or {}).get("Name", ""))
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
    return any(len(pair) > 1 and pair[0] == "driver-type" and pair[1] == _CONTAINERD_STORE for pair in status)


def _cdi_devices(info: Mapping[str, Any]) -> tuple[str, ...] | None:
    devices = info.get("DiscoveredDevices")
    if devices is None:  # an empty list is left out as well, so it cannot be told from an old engine
        return None
    return tuple(sorted(str(d.get("ID", "")) for d in devices if d.get("Source") == "cdi"))


def _program(runtime: Any) -> str:
    """The program of a runtime; runtimes that are containerd shims have a type instead."""
    return str(runtime.get("path") or runtime.get("runtimeType") or "") if isinstance(runtime, Mapping) else ""


def _missing(program: str) -> bool:
    """A bare name is looked for on the daemon's PATH, which is not known here."""
    try:
        return program.startswith("/") and not Path(program).exists()
    except OSError:
        return False  # a folder that this user may not look into


def _buildx(timeout: float) -> str | None:
    """The version of the buildx plugin, such as 0.13.1; "unknown" when it is there and does not say."""
    result = command.run(["docker", "buildx", "version"], timeout=timeout)
    if not result.ok:
        return None
    match = re.search(r"\bv?(\d+\.\d+(\.\d+)?\S*)", result.stdout)
    return match.group(1) if match else "unknown"

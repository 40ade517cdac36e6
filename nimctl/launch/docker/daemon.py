"""What the Docker daemon is like, for host facts: one look with a bound on the whole of it."""

import re
import socket
import threading
from dataclasses import replace
from typing import Any

from nimctl.core import command
from nimctl.core.facts import DockerFacts, DockerState
from nimctl.launch.docker.client import DEFAULT_ENDPOINT, endpoint, open_client
from nimctl.launch.docker.errors import Doing, id_of, translate

_STATES: dict[str, DockerState] = {
    "docker-missing": "missing",
    "docker-permission": "permission",
    "docker-hangs": "hangs",
}
# Of the time given: what one read may take. The rest is for starting, and for a daemon that drips.
_SHARE = 0.8


def describe_daemon(timeout: float = 5.0) -> DockerFacts:
    """The daemon of this user's environment. Never raises and returns within `timeout` seconds.

    `state` tells apart: no socket, a socket this user may not open, nobody behind it, and a daemon that accepts the
    connection and then says nothing.
    """
    found: list[DockerFacts] = []
    buildx: list[str | None] = [None]

    def ask_daemon() -> None:
        found.append(_look(timeout * _SHARE))

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
    return replace(found[0], buildx=buildx[0])


def _look(timeout: float) -> DockerFacts:
    where = DEFAULT_ENDPOINT
    try:
        where = endpoint()
        _knock(where, timeout)
        client = open_client(timeout)
        try:
            return _facts(where, client.version(api_version=False), client.info())
        finally:
            client.close()
    except Exception as error:
        problem = translate(error, Doing("asking the daemon"))
        return DockerFacts(_STATES.get(id_of(error, Doing("")), "unreachable"), problem.cause, endpoint=where)


def _knock(where: str, timeout: float) -> None:
    """Connect to a Unix socket and hang up: the plain reason of a failure, before docker-py wraps it three times."""
    if where.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(timeout)
            visitor.connect("/" + where.removeprefix("unix://").lstrip("/"))


def _facts(where: str, version: dict[str, Any], info: dict[str, Any]) -> DockerFacts:
    security = tuple(info.get("SecurityOptions") or ())
    return DockerFacts(
        "ok",
        endpoint=where,
        version=version.get("Version"),
        api_version=version.get("ApiVersion"),
        rootless=any("rootless" in option for option in security),
        storage_driver=info.get("Driver"),
        data_root=info.get("DockerRootDir"),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        default_runtime=info.get("DefaultRuntime"),
        cdi_spec_dirs=tuple(info.get("CDISpecDirs") or ()) or None,
        cgroup_driver=info.get("CgroupDriver"),
        cgroup_version=info.get("CgroupVersion"),
        security_options=security,
        architecture=info.get("Architecture"),
        operating_system=info.get("OperatingSystem"),
    )


def _buildx(timeout: float) -> str | None:
    """The version of the buildx plugin, such as 0.13.1; "unknown" when it is there and does not say."""
    result = command.run(["docker", "buildx", "version"], timeout=timeout)
    if not result.ok:
        return None
    match = re.search(r"\bv?(\d+\.\d+(\.\d+)?\S*)", result.stdout)
    return match.group(1) if match else "unknown"

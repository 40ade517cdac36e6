"""Opening a connection to the Docker daemon. The only importer of docker-py (package `docker`).

Which daemon follows the docker command: DOCKER_HOST, else the current context (DOCKER_CONTEXT or config.json), else
the local socket. What docker-py raises leaves here untranslated; `nimctl.launch.docker.errors` knows every class.
"""

from typing import Any

import docker
from docker.context import ContextAPI
from docker.utils import kwargs_from_env

DEFAULT_ENDPOINT = "unix:///var/run/docker.sock"


def endpoint() -> str:
    """The address of the daemon that would be asked."""
    asked = kwargs_from_env().get("base_url") or ContextAPI.kwargs_from_context().get("base_url")
    return str(asked or DEFAULT_ENDPOINT).replace("http+unix://", "unix://")


def open_client(timeout: float) -> Any:
    """A low-level client of that daemon that speaks the newest API both sides know. Asks the daemon for its version.

    `timeout` in seconds bounds each connect and read, not the whole of a call.
    """
    return docker.from_env(timeout=timeout, use_ssh_client=True).api

"""nginx on the public port: what it is given, how it is started, and what is asked of it while it runs.

Why nginx and not a route of the engine: it answers while the engine loads, hangs or is dead, and costs about 5% of the
engine's own streaming rate. Nothing here is needed after the start but the counters and the keys.
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from entrypoint.front import openapi
from entrypoint.front.cors import Cors
from entrypoint.front.inner import METRICS_PAGE
from entrypoint.front.keys import read_keys, render_keys
from entrypoint.front.model import Front, Tls
from entrypoint.front.rendering import render
from entrypoint.settings import Settings
from entrypoint.state import State, write_atomically
from nimctl.core.errors import NimctlError

__all__ = ["Front", "Tls", "check_port", "command", "find_nginx", "front_of", "open_requests", "prepare", "render"]


def front_of(settings: Settings, state: State, token: str, *, api: bool = True) -> Front:
    """The front that the settings ask for; `api` is False on a node that follows another.

    Raises `config-invalid` for unreadable keys, TLS without files, and a health port that could not be what it is for.
    """
    keys = read_keys(settings.api_keys_file) if settings.api_keys_file is not None else None
    tls = None
    if settings.ssl_mode is not None:
        key = _named(settings.ssl_key, "NIM_SSL_KEY_PATH", settings.ssl_mode)
        certificate = _named(settings.ssl_certs, "NIM_SSL_CERTS_PATH", settings.ssl_mode)
        mutual = settings.ssl_mode == "MTLS"
        tls = Tls(key, certificate, _named(settings.ssl_ca, "NIM_SSL_CA_CERTS_PATH", "MTLS") if mutual else None)
    apart = settings.health_port != settings.port
    if not apart and (tls is not None or keys is not None):
        raise NimctlError(
            "config-invalid",
            f"NIM_HEALTH_PORT={settings.health_port} is the public port",
            cause="health and metrics are without TLS and keys there, and the public port is not",
            fix="Set NIM_HEALTH_PORT to another port than NIM_SERVER_PORT, or unset it.",
        )
    return Front(
        settings.host,
        settings.port,
        token,
        health_port=settings.health_port if apart else None,
        tls=tls,
        keys=keys,
        cors=Cors(
            settings.cors_origins,
            settings.cors_methods,
            settings.cors_headers,
            settings.cors_expose,
            settings.cors_max_age,
        ),
        max_body_mib=settings.max_body_mib,
        sagemaker=settings.sagemaker,
        scale_out=_scale_out(settings.engine_args),
        api=api,
        way_in=state.public_socket if tls is not None else None,
    )


def _scale_out(words: Sequence[str]) -> bool:
    """Whether the engine is told to answer the routes of `routes.SCALE_OUT`; the last word wins, as for the engine."""
    said = [word for word in words if word in ("--enable-scale-out", "--no-enable-scale-out")]
    return said[-1:] == ["--enable-scale-out"]


def _named(path: Path | None, name: str, mode: str) -> Path:
    if path is None:
        raise NimctlError(
            "config-invalid",
            f"NIM_SSL_MODE={mode} needs {name}",
            cause=f"{name} is not set",
            fix=f"Set {name} to a mounted PEM file, or unset NIM_SSL_MODE.",
        )
    return path


def prepare(front: Front, state: State, *, cpus: int, log_level: str) -> None:
    """Write everything that nginx reads when it starts."""
    if front.keys is not None:
        write_atomically(state.keys_config, render_keys(front.keys), mode=0o600)
    write_atomically(state.public / "metrics.ssi", METRICS_PAGE)
    described = openapi.ours(front.routes, keys=front.keys is not None)
    write_atomically(state.public / "openapi.json", json.dumps(described))
    write_atomically(state.nginx_config, render(front, state, cpus=cpus, log_level=log_level), mode=0o600)


def find_nginx(path: str | None) -> str:
    """The nginx program on `path` or where distributions put it. Raises `front-missing`."""
    folders = [*(path or "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    candidates = [str(Path(folder) / "nginx") for folder in folders if folder]
    found = next((c for c in candidates if os.access(c, os.X_OK) and Path(c).is_file()), None)
    if found is None:
        raise NimctlError(
            "front-missing",
            "nginx was not found",
            cause="it is neither on PATH nor in /usr/sbin",
            fix="Install it (apt-get install nginx-light), or use --runtime docker.",
        )
    return found


def command(nginx: str, state: State) -> list[str]:
    """How nginx is started; `-e stderr` because the log it was built with may be on a read-only filesystem."""
    return [nginx, "-e", "stderr", "-p", str(state.root), "-c", str(state.nginx_config)]


def check_port(front: Front) -> None:
    """Find out at once what nginx would need 2.5 s to say. Raises `port-in-use` or `config-invalid`."""
    _check(front.host, front.port, "NIM_SERVER_PORT", "set NIM_SERVER_PORT (host side: --port) to another port.")
    if front.health_port is not None:
        _check(front.host, front.health_port, "NIM_HEALTH_PORT", "set NIM_HEALTH_PORT to another port.")


def _check(host: str, port: int, name: str, other: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if "in use" in str(error):
                raise NimctlError(
                    "port-in-use",
                    f"port {port} on {host} is taken",
                    cause=str(error),
                    fix=f"Stop what listens there, or {other}",
                ) from error
            raise NimctlError(
                "config-invalid",
                f"cannot listen on {host} port {port}",
                cause=str(error),
                fix=f"Correct NIM_SERVER_HOST and {name}; ports below 1024 need a privilege this user lacks.",
            ) from error


def open_requests(counters: str) -> int:
    """How many requests are being read or answered, from the text of nginx's `stub_status` (which counts its own).

    Idle keep-alive connections are not requests: https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
    Raises ValueError for any other text.
    """
    words = counters.split()
    try:
        return int(words[words.index("Writing:") + 1]) - 1
    except IndexError as error:
        raise ValueError(f"not a stub_status text: {counters[:80]!r}") from error

"""nginx on the public port: rendering its configuration, finding it, and the documents it serves by itself.

Why nginx and not a route of the engine: it answers while the engine loads, hangs or is dead, and costs about 5% of the
engine's own streaming rate. Nothing here is needed after the start but the counters.
"""

import grp
import os
import pwd
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from string import Template

from entrypoint.state import State
from nimctl.core.errors import NimctlError

BODY_LIMIT = "64m"

# How long the engine may be silent. A long answer without streaming takes minutes, not hours.
_PROXY = """proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Nimctl-Warmup "";
            proxy_buffering off;
            proxy_next_upstream off;
            proxy_connect_timeout 10s;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;"""


@dataclass(frozen=True)
class Front:
    """Where the front listens, and the header value that lets the warm-up through before ready."""

    host: str
    port: int
    token: str

    @property
    def client_host(self) -> str:
        """The address at which we reach ourselves."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a key, not a bind)


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


def render(front: Front, state: State, *, cpus: int, log_level: str) -> str:
    """The configuration. Paths hold no character that nginx would read (see `settings`)."""
    template = Path(__file__).with_name("nginx.conf.template").read_text(encoding="utf-8")
    open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
    open_files = open_files if open_files > 0 else 65536  # RLIM_INFINITY is -1
    return Template(template).substitute(
        state=state.root,
        public=state.public,
        engine_socket=state.engine_socket,
        front_socket=state.front_socket,
        token=front.token,
        listen=f"[{front.host}]:{front.port}" if ":" in front.host else f"{front.host}:{front.port}",
        user=_user(),
        workers=max(1, min(4, cpus)),
        open_files=open_files,
        connections=min(open_files // 2, 16384),
        body_limit=BODY_LIMIT,
        log_level="warn" if log_level in ("DEBUG", "INFO", "WARNING") else "error",
        proxy=_PROXY,
    )


def _user() -> str:
    """As root, nginx's workers would become `nobody`, who may enter neither the state folder nor the socket."""
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def check_port(front: Front) -> None:
    """Find out at once what nginx would need 2.5 s to say. Raises `port-in-use` or `config-invalid`."""
    family = socket.AF_INET6 if ":" in front.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((front.host, front.port))
            probe.listen(1)
        except OSError as error:
            raise _port_error(front, str(error)) from error


def _port_error(front: Front, reason: str) -> NimctlError:
    if "in use" in reason:
        return NimctlError(
            "port-in-use",
            f"port {front.port} on {front.host} is taken",
            cause=reason,
            fix="Stop what listens there, or set NIM_SERVER_PORT (host side: --port) to another port.",
        )
    return NimctlError(
        "config-invalid",
        f"cannot listen on {front.host} port {front.port}",
        cause=reason,
        fix="Correct NIM_SERVER_HOST and NIM_SERVER_PORT; ports below 1024 need a privilege this user lacks.",
    )


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

"""nginx's configuration, from the tables of this room and the settings. Only `_user` looks at the machine."""

import grp
import os
import pwd
import re
import resource
from pathlib import Path
from string import Template

from entrypoint.front import cors
from entrypoint.front.blocks import indented
from entrypoint.front.inner import error_pages, internal
from entrypoint.front.locations import location, locations
from entrypoint.front.model import Front
from entrypoint.front.quoting import quoted
from entrypoint.front.routes import HEALTH, METRICS
from entrypoint.state import State


def render(front: Front, state: State, *, cpus: int, log_level: str) -> str:
    """The configuration. Raises `config-invalid` for settings that nginx could not take as what they are."""
    template = Path(__file__).with_name("nginx.conf.template").read_text(encoding="utf-8")
    open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
    open_files = open_files if open_files > 0 else 65536  # RLIM_INFINITY is -1
    return Template(template).substitute(
        state=state.root,
        public=state.public,
        engine_socket=state.engine_socket,
        front_socket=state.front_socket,
        request_log=state.request_log,
        token=front.token,
        user=_user(),
        workers=max(1, min(4, cpus)),
        open_files=open_files,
        connections=min(open_files // 2, 16384),
        max_body=front.max_body_mib,
        log_level="warn" if log_level == "DEBUG" else "error",
        maps=indented("\n".join([cors.maps(front.cors), _key_maps(front, state), _shape_map(front)]), 4),
        listen=indented(_listen(front, state), 8),
        locations=indented(locations(front, state), 8),
        internal=indented(internal(front, state), 8),
        error_pages=indented(error_pages(front), 8),
        health_server=_health_server(front, state),
    )


def _user() -> str:
    """As root, nginx's workers would become `nobody`, who may enter neither the state folder nor the socket."""
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(front: Front, state: State) -> str:
    """The listeners of the public server, and TLS for the one that has it."""
    if front.tls is None:
        return f"listen {_address(front.host, front.port)};"
    lines = [
        f"listen {_address(front.host, front.port)} ssl;",
        f'listen "unix:{state.public_socket}";',
        f"ssl_certificate {quoted(str(front.tls.certificate), 'NIM_SSL_CERTS_PATH')};",
        f"ssl_certificate_key {quoted(str(front.tls.key), 'NIM_SSL_KEY_PATH')};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;",
        "ssl_session_cache shared:tls:10m;",
        "ssl_session_tickets off;",
    ]
    if front.tls.authorities is not None:
        # Optional here, whoever signed it, and judged by every route that is not open: probes that look at health have
        # none, or one of another authority. nginx itself refuses everywhere those that have expired and the like.
        path = quoted(str(front.tls.authorities), "NIM_SSL_CA_CERTS_PATH")
        lines += [f"ssl_client_certificate {path};", "ssl_verify_client optional_no_ca;", "ssl_verify_depth 5;"]
    return "\n".join(lines)


def _key_maps(front: Front, state: State) -> str:
    """`$refused` is 1 for requests that lack a key; our own need none."""
    lines = ['map "$https:$ssl_client_verify" $no_certificate {', "    default 0;", '    "~^on:(?!SUCCESS$)" 1;', "}"]
    if front.keys is not None:
        lines += [
            f'include "{state.keys_config}";',
            'map "$warming:$known_key" $refused {',
            "    default 0;",
            '    "0:0" 1;',
            "}",
        ]
    return "\n".join(lines)


def _shape_map(front: Front) -> str:
    """`$shape` says whose errors a client reads.

    A location says so itself; by the address too, because a body that is too large ends before its location begins.
    """
    paths = "|".join(re.escape(route.path) for route in front.routes if route.anthropic)
    named = f'    "~^({paths})([?]|$)" anthropic;\n' if paths else ""
    return f"map $request_uri $shape {{\n    default $dialect;\n{named}}}"


def _health_server(front: Front, state: State) -> str:
    """Health and metrics alone, without TLS and keys: for probes and scrapers inside the cluster."""
    if front.health_port is None:
        return ""
    plain = Front(front.host, front.health_port, "")
    blocks = [location(route, plain, state) for route in (*HEALTH, METRICS)]
    lines = [
        f"listen {_address(front.host, front.health_port)};",
        "server_name _;",
        error_pages(front),
        *blocks,
        "location / { return 404; }",
        internal(plain, state),
    ]
    return "\n".join(["    server {", *(indented("        " + line, 8) for line in lines), "    }"])

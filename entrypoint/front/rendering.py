"""nginx's configuration, from the tables of this room and the settings. Only `_user` looks at the machine."""

import grp
import os
import pwd
import resource
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from entrypoint.front import cors, refusals
from entrypoint.front.cors import Cors
from entrypoint.front.keys import Keys
from entrypoint.front.quoting import quoted
from entrypoint.front.routes import HEALTH, ID, METRICS, Route, table
from entrypoint.state import State

PAGES = Path(__file__).with_name("pages")

# No answer of our own is worth keeping.
_NO_STORE = ("Cache-Control", "no-store, no-cache, must-revalidate")

# Nothing but these files, nothing from elsewhere, in nobody's frame.
_PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
_PAGE_TYPES = {"/docs": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}

# A code of our own for a server that is not ready, as health tells it; clients see 503.
_UNREADY = 590

_OK = '{"object":"health.response","message":"Service is %s","status":"ok"}'

# What is sent on to the engine, however long it takes: a long answer without streaming takes minutes, not hours.
_PROXY = """proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $http_host;
proxy_set_header Origin "";
proxy_set_header X-Request-Id $rid;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Nimctl-Warmup "";
proxy_hide_header X-Request-Id;
proxy_hide_header Access-Control-Allow-Origin;
proxy_buffering off;
proxy_next_upstream off;
proxy_connect_timeout 10s;
proxy_read_timeout 1h;
proxy_send_timeout 1h;"""

# Checked here, so that the engine needs none of it.
_PROXY_KEYS = """proxy_set_header Authorization "";
proxy_set_header X-Api-Key "";"""


@dataclass(frozen=True)
class Tls:
    """PEM files; with `authorities`, clients must show a certificate of one of them."""

    key: Path
    certificate: Path
    authorities: Path | None = None


@dataclass(frozen=True)
class Front:
    """Where the front listens and whom it lets in; `token` is the header value that lets our own requests through.

    `way_in` is the socket for those while the public port speaks TLS, for which we have no client certificate. Without
    `api` no request reaches the engine: another node answers them.
    """

    host: str
    port: int
    token: str
    health_port: int | None = None
    tls: Tls | None = None
    keys: Keys | None = None
    cors: Cors = field(default_factory=Cors)
    max_body_mib: int = 64
    sagemaker: bool = False
    api: bool = True
    way_in: Path | None = None

    @property
    def client_host(self) -> str:
        """The address at which we reach ourselves, as `unixhttp` takes it."""
        if self.way_in is not None:
            return f"unix:{self.way_in}"
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a key, not a bind)


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
        maps=_indented(cors.maps(front.cors) + "\n" + _key_maps(front, state), 4),
        listen=_indented(_listen(front, state), 8),
        locations=_indented(_locations(front, state), 8),
        internal=_indented(_internal(front, state), 8),
        error_pages=_indented(_error_pages(front), 8),
        health_server=_health_server(front, state),
    )


def _user() -> str:
    """As root, nginx's workers would become `nobody`, who may enter neither the state folder nor the socket."""
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)


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
        # Optional here and asked for by every route but health, which probes without a certificate look at.
        path = quoted(str(front.tls.authorities), "NIM_SSL_CA_CERTS_PATH")
        lines += [f"ssl_client_certificate {path};", "ssl_verify_client optional;", "ssl_verify_depth 5;"]
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


def _headers(front: Front, *more: tuple[str, str]) -> str:
    """`add_header` lines; nginx inherits none into a block that has one of its own."""
    headers = [("X-Request-Id", "$rid"), *cors.headers(front.cors), *more]
    return "\n".join(f'add_header {name} "{value}" always;' for name, value in headers)


def _locations(front: Front, state: State) -> str:
    return "\n".join(_location(route, front, state) for route in table(sagemaker=front.sagemaker))


def _location(route: Route, front: Front, state: State) -> str:
    """One route: the checks in the order in which a client should hear of them, then the answer."""
    lines = [f'set $route "{route.path}";', f'set $allow "{", ".join((*route.methods, "OPTIONS"))}";']
    if route.anthropic:
        lines.append("set $shape anthropic;")
    lines.append("if ($request_method = OPTIONS) { rewrite ^ /internal/preflight last; }")
    lines.append(f'if ($request_method !~ "^({"|".join(route.methods)})$") {{ return 405; }}')
    if not route.open:
        lines += _guards(front)
    lines.append(_answer(route, front, state))
    where = f"= {route.path}"
    if name := route.parameter:
        where = '~ "^' + route.path.replace("{" + name + "}", f"(?<{name}>{ID})") + '$"'
    return "\n".join([f"location {where} {{", *(_indented("    " + line, 4) for line in lines), "}"])


def _guards(front: Front) -> Iterable[str]:
    if front.tls is not None and front.tls.authorities is not None:
        yield "if ($no_certificate) { return 403; }"
    if front.keys is not None:
        yield "if ($refused) { return 401; }"


def _answer(route: Route, front: Front, state: State) -> str:
    if route.by == "engine":
        return _from_engine(route, front)
    if route.by == "health":
        return _headers(front, _NO_STORE) + "\n" + _health(route.path, state)
    if route.by == "metrics":
        return _headers(front, _NO_STORE) + "\n" + _metrics(state)
    if route.by == "page":
        name = {"/docs": "explorer.html"}.get(route.path, route.path.rpartition("/")[2])
        kind = next(kind for end, kind in _PAGE_TYPES.items() if route.path.endswith(end))
        page = [("Content-Security-Policy", _PAGE_POLICY), ("X-Content-Type-Options", "nosniff")]
        path = quoted(str(PAGES / name), "the folder of this package")
        return _headers(front, _NO_STORE, *page) + f'\ndefault_type "{kind}";\nalias {path};'
    # A file is there as soon as its content is known.
    name = route.path.rpartition("/")[2].removesuffix(".json")
    path = f'"{state.public}/{name}.json"'
    return f"if (!-f {path}) {{ return 503; }}\n" + _headers(front, _NO_STORE) + f"\nalias {path};"


def _from_engine(route: Route, front: Front) -> str:
    """To the engine goes the path of the table, however the client spelled it."""
    if not front.api:
        return "return 421;"
    lines = []
    if route.methods == ("POST",):
        lines.append('if ($http_content_encoding !~* "^(identity)?$") { return 415; }')
    lines.append("if ($open = 0) { return 503; }")
    path = route.upstream or route.path
    if name := route.parameter:
        path = path.replace("{" + name + "}", f"${name}") + "$is_args$args"
    lines += [_headers(front), f"proxy_pass http://engine{path};", _PROXY]
    if front.keys is not None:
        lines.append(_PROXY_KEYS)
    return "\n".join(lines)


def _health(path: str, state: State) -> str:
    if path.endswith("/live"):
        return f"return 200 '{_OK % 'live'}';"
    if path.endswith("/startup"):
        return f'alias "{state.public}/startup.json";'
    return f"""if (!-f "{state.ready}") {{ return {_UNREADY}; }}
return 200 '{_OK % "ready"}';"""


def _metrics(state: State) -> str:
    """Both texts in one body; that of ours comes first and alone when the engine gives none."""
    return f"""default_type "text/plain; version=0.0.4; charset=utf-8";
ssi on;
ssi_types *;
ssi_silent_errors on;
alias "{state.public}/metrics.ssi";"""


METRICS_PAGE = '<!--# include virtual="/internal/metrics/ours" --><!--# include virtual="/internal/metrics/engine" -->'


def _error_pages(front: Front) -> str:
    lines = [
        f"error_page {r.code} ={r.status} /internal/errors/{r.code};" for r in refusals.refusals(front.max_body_mib)
    ]
    lines.append("error_page 496 =403 /internal/errors/403;")
    lines.append("error_page 503 /internal/refusal;")
    lines.append(f"error_page {_UNREADY} =503 /internal/unready;")
    return "\n".join(lines)


def _internal(front: Front, state: State) -> str:
    blocks = [_error_location(refusal, front) for refusal in refusals.refusals(front.max_body_mib)]
    blocks.append(_refusal_location(front, state))
    blocks.append(_preflight(front))
    blocks.append(_block("= /internal/unready", _headers(front, _NO_STORE), f'alias "{state.public}/unready.json";'))
    blocks.append(_nothing(front))
    ours = [f'alias "{state.metrics}";', "error_page 404 = /internal/nothing;", "log_not_found off;"]
    blocks.append(_block("= /internal/metrics/ours", *ours))
    blocks.append(_engine_metrics())
    return "\n".join(blocks)


def _block(where: str, *lines: str) -> str:
    return "\n".join([f"location {where} {{", "    internal;", *(_indented("    " + line, 4) for line in lines), "}"])


def _error_location(refusal: refusals.Refusal, front: Front) -> str:
    return _block(
        f"= /internal/errors/{refusal.code}",
        _headers(front, _NO_STORE, *refusal.headers),
        f"if ($shape = anthropic) {{ return {refusal.status} '{refusal.anthropic_body()}'; }}",
        f"return {refusal.status} '{refusal.openai_body()}';",
    )


def _refusal_location(front: Front, state: State) -> str:
    refusal = refusals.NOT_READY
    return _block(
        "= /internal/refusal",
        _headers(front, _NO_STORE, *refusal.headers),
        f"if ($shape = anthropic) {{ return {refusal.status} '{refusal.anthropic_body()}'; }}",
        f'alias "{state.public}/refusal.json";',
    )


def _preflight(front: Front) -> str:
    return _block(
        "= /internal/preflight",
        _headers(front, ("Allow", "$allow")),
        cors.preflight(front.cors),
        "return 204;",
    )


def _nothing(front: Front) -> str:
    """What takes the place of metrics that are not there; whoever asks for it from outside asks for nothing we have."""
    missing = next(r for r in refusals.refusals(front.max_body_mib) if r.code == 404)
    guard = f"""if ($route = "") {{ return 404 '{missing.openai_body()}'; }}"""
    return _block("= /internal/nothing", _headers(front, _NO_STORE), guard, "return 200 '';")


def _engine_metrics() -> str:
    """Plain text whatever the scraper would like: it is the second half of a text of that form."""
    return _block(
        "= /internal/metrics/engine",
        "proxy_pass http://engine/metrics;",
        "proxy_http_version 1.1;",
        "proxy_method GET;",
        "proxy_pass_request_headers off;",
        "proxy_pass_request_body off;",
        'proxy_set_header Connection "";',
        'proxy_set_header Host "engine";',
        'proxy_set_header Content-Length "";',
        "proxy_connect_timeout 2s;",
        "proxy_read_timeout 5s;",
        "proxy_intercept_errors on;",
        "error_page 301 302 307 308 400 401 403 404 405 408 413 429 500 501 502 503 504 = /internal/nothing;",
    )


def _health_server(front: Front, state: State) -> str:
    """Health and metrics alone, without TLS and keys: for probes and scrapers inside the cluster."""
    if front.health_port is None:
        return ""
    plain = Front(front.host, front.health_port, "")
    blocks = [_location(route, plain, state) for route in (*HEALTH, METRICS)]
    lines = [
        f"listen {_address(front.host, front.health_port)};",
        "server_name _;",
        _error_pages(front),
        *blocks,
        "location / { return 404; }",
        _internal(plain, state),
    ]
    return "\n".join(["    server {", *(_indented("        " + line, 8) for line in lines), "    }"])

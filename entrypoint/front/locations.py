"""A location of nginx's configuration for each route of the table."""

from collections.abc import Iterable
from pathlib import Path

from entrypoint.front.blocks import NO_STORE, UNREADY, headers_of, indented
from entrypoint.front.model import Front
from entrypoint.front.quoting import quoted
from entrypoint.front.routes import ID, Route
from entrypoint.state import State

PAGES = Path(__file__).with_name("pages")

# Nothing but these files, nothing from elsewhere, in nobody's frame.
_PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
_PAGE_TYPES = {"/docs": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}

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


def locations(front: Front, state: State) -> str:
    """Every route."""
    return "\n".join(location(route, front, state) for route in front.routes)


def location(route: Route, front: Front, state: State) -> str:
    """One route: the checks in the order in which a client should hear of them, then the answer."""
    lines = [f'set $route "{route.path}";', f'set $allow "{", ".join((*route.methods, "OPTIONS"))}";']
    if route.anthropic:
        lines.append("set $dialect anthropic;")
    lines.append("if ($request_method = OPTIONS) { rewrite ^ /internal/preflight last; }")
    lines.append(f'if ($request_method !~ "^({"|".join(route.methods)})$") {{ return 405; }}')
    if not route.open:
        lines += _guards(front)
    lines.append(_answer(route, front, state))
    where = f"= {route.path}"
    if name := route.parameter:
        where = '~ "^' + route.path.replace("{" + name + "}", f"(?<{name}>{ID})") + '$"'
    return "\n".join([f"location {where} {{", *(indented("    " + line, 4) for line in lines), "}"])


def _guards(front: Front) -> Iterable[str]:
    if front.tls is not None and front.tls.authorities is not None:
        yield "if ($ssl_client_verify ~ ^FAILED) { return 495; }"
        yield "if ($no_certificate) { return 403; }"
    if front.keys is not None:
        yield "if ($refused) { return 401; }"


def _answer(route: Route, front: Front, state: State) -> str:
    if route.by == "engine":
        return _from_engine(route, front)
    if route.by == "health":
        return headers_of(front, NO_STORE) + "\n" + _health(route.path, state)
    if route.by == "metrics":
        return headers_of(front, NO_STORE) + "\n" + _metrics(state)
    if route.by == "page":
        name = {"/docs": "explorer.html"}.get(route.path, route.path.rpartition("/")[2])
        kind = next(kind for end, kind in _PAGE_TYPES.items() if route.path.endswith(end))
        page = [("Content-Security-Policy", _PAGE_POLICY), ("X-Content-Type-Options", "nosniff")]
        path = quoted(str(PAGES / name), "the folder of this package")
        return headers_of(front, NO_STORE, *page) + f'\ndefault_type "{kind}";\nalias {path};'
    # A file is there as soon as its content is known.
    name = route.path.rpartition("/")[2].removesuffix(".json")
    path = f'"{state.public}/{name}.json"'
    return f"if (!-f {path}) {{ return 503; }}\n" + headers_of(front, NO_STORE) + f"\nalias {path};"


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
    lines += [headers_of(front), f"proxy_pass http://engine{path};", _PROXY]
    if front.keys is not None:
        lines.append(_PROXY_KEYS)
    return "\n".join(lines)


def _health(path: str, state: State) -> str:
    if path.endswith("/live"):
        return f"return 200 '{_OK % 'live'}';"
    if path.endswith("/startup"):
        return f'alias "{state.public}/startup.json";'
    return f"""if (!-f "{state.ready}") {{ return {UNREADY}; }}
return 200 '{_OK % "ready"}';"""


def _metrics(state: State) -> str:
    """Both texts in one body; that of ours comes first and alone when the engine gives none.

    No line of the log tells of that: it is so during each start, however often somebody asks.
    """
    return f"""error_log stderr emerg;
default_type "text/plain; version=0.0.4; charset=utf-8";
ssi on;
ssi_types *;
ssi_silent_errors on;
alias "{state.public}/metrics.ssi";"""

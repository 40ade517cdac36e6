"""Answers to browsers of other sites (CORS): https://fetch.spec.whatwg.org/#http-cors-protocol

Credentials (cookies, certificates) are never allowed: the API takes keys in headers, which need no such permission,
and with the default `*` browsers would ignore it anyway.
"""

import re
from dataclasses import dataclass

from entrypoint.front.quoting import quoted
from nimctl.core.errors import NimctlError

_ORIGIN = re.compile(
    r"null|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[0-9]{1,5})?", re.IGNORECASE
)
_TOKEN = re.compile(r"[!#%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Cors:
    """What `NIM_CORS_*` say; lists separated by commas, `max_age` in seconds, which None leaves to the browser."""

    origins: str = "*"
    methods: str = "GET, POST, PUT, DELETE, PATCH, OPTIONS"
    headers: str = "Content-Type, Authorization, X-Request-Id"
    expose: str = "X-Request-Id"
    max_age: int | None = None


def maps(cors: Cors) -> str:
    """nginx's maps: `$cors_origin` is empty for requests that get no CORS headers."""
    origins = _list(cors.origins, "NIM_CORS_ALLOW_ORIGINS", _ORIGIN, star=True)
    lines = ["map $http_origin $cors_origin {", '    default "";']
    if "*" in origins:
        lines = ["map $http_origin $cors_origin {", '    "" "";', '    default "*";']
    else:
        lines += [
            f"    {quoted(origin, 'NIM_CORS_ALLOW_ORIGINS')} $http_origin;"
            for origin in dict.fromkeys(_folded(origins))
        ]
    expose = ", ".join(_list(cors.expose, "NIM_CORS_EXPOSE_HEADERS", _TOKEN))
    lines += ["}", "map $cors_origin $cors_expose {", '    "" "";']
    lines += [f"    default {quoted(expose, 'NIM_CORS_EXPOSE_HEADERS')};", "}"]
    return "\n".join(lines)


def headers(cors: Cors) -> list[tuple[str, str]]:
    """Headers of every answer; nginx leaves out those that are empty."""
    always = [("Access-Control-Allow-Origin", "$cors_origin"), ("Access-Control-Expose-Headers", "$cors_expose")]
    return always + [("Vary", "Origin")] * (
        "*" not in _list(cors.origins, "NIM_CORS_ALLOW_ORIGINS", _ORIGIN, star=True)
    )


def preflight(cors: Cors) -> str:
    """The headers that the answer to a preflight has besides, as lines of nginx's configuration."""
    methods = ", ".join(_list(cors.methods, "NIM_CORS_ALLOW_METHODS", _TOKEN))
    allowed = _list(cors.headers, "NIM_CORS_ALLOW_HEADERS", _TOKEN)
    if "*" in allowed and "authorization" not in [name.lower() for name in allowed]:
        allowed.append("Authorization")  # the one header that `*` does not stand for
    lines = [
        f"add_header Access-Control-Allow-Methods {quoted(methods, 'NIM_CORS_ALLOW_METHODS')} always;",
        f"add_header Access-Control-Allow-Headers {quoted(', '.join(allowed), 'NIM_CORS_ALLOW_HEADERS')} always;",
    ]
    if cors.max_age is not None:
        lines.append(f"add_header Access-Control-Max-Age {int(cors.max_age)} always;")
    return "\n".join(lines)


def _folded(origins: list[str]) -> list[str]:
    """nginx's maps do not tell upper from lower case, and refuse the same word twice."""
    return [origin.lower() for origin in origins]


def _list(text: str, name: str, form: re.Pattern[str], *, star: bool = False) -> list[str]:
    words = [word for part in text.split(",") if (word := part.strip())]
    for word in words:
        if not form.fullmatch(word) and not (star and word == "*"):
            raise NimctlError(
                "config-invalid",
                f"{name} cannot be used",
                cause=f"{word[:80]!r} is " + ("no origin such as https://example.com" if star else "no name"),
                fix=f"Correct or unset {name}: a list separated by commas" + (", or `*`." if star else "."),
            )
    return words

"""Browsers of other sites: preflights, errors and streams, and settings that try to be more than a value."""

import pytest

from entrypoint.front import cors
from entrypoint.front.cors import Cors
from entrypoint.front.quoting import quoted
from nimctl.core.errors import NimctlError
from tests.unit.entrypoint.front_lab import lab
from tests.unit.entrypoint.service import needs_nginx

SITE = "https://app.example.com"
ALLOW = "access-control-allow-origin"


@needs_nginx
def test_any_site_by_default():
    with lab() as one:
        preflight = one.ask("OPTIONS", "/v1/chat/completions", Origin=SITE, Access_Control_Request_Method="POST")
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers[ALLOW] == "*"
        assert preflight.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, PATCH, OPTIONS"
        assert preflight.headers["access-control-allow-headers"] == "Content-Type, Authorization, X-Request-Id"
        assert "access-control-allow-credentials" not in preflight.headers
        for answer in (
            one.chat(Origin=SITE),
            one.get("/nothing", Origin=SITE),
            one.get("/v1/chat/completions", Origin=SITE),
            one.get("/v1/health/live", Origin=SITE),
        ):
            assert answer.headers[ALLOW] == "*"
            assert answer.headers["access-control-expose-headers"] == "X-Request-Id"
        assert one.asked[-1].header("Origin") == []
        assert ALLOW not in one.chat().headers, "no browser, no header"
        assert one.ask("OPTIONS", "/nothing", Origin=SITE).status == 404
        assert one.asked[-1].method == "POST", "no preflight reaches the engine"


@needs_nginx
def test_only_the_sites_that_are_named():
    asked = Cors(f"{SITE}, http://localhost:3000", "POST", "*", "X-Request-Id, X-Other", 60)
    with lab(cors=asked) as one:
        for site in (SITE, "http://localhost:3000"):
            answer = one.chat(Origin=site)
            assert answer.headers[ALLOW] == site
            assert answer.headers["vary"] == "Origin"
        for site in ("https://evil.example.com", SITE + ".evil.com", "null", SITE + ":8443", SITE + "\\"):
            answer = one.chat(Origin=site)
            assert ALLOW not in answer.headers
            assert answer.headers["vary"] == "Origin"
        preflight = one.ask("OPTIONS", "/v1/models", Origin=SITE)
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert preflight.headers["access-control-allow-headers"] == "*, Authorization"
        assert preflight.headers["access-control-max-age"] == "60"


@pytest.mark.parametrize(
    "asked",
    [
        Cors(origins='*"; } server { listen 1; '),
        Cors(origins="https://a.example\r\nX: y"),
        Cors(origins="$http_origin"),
        Cors(origins="https://a.example/path"),
        Cors(origins="example.com"),
        Cors(methods="GET; x"),
        Cors(headers="A B"),
        Cors(headers="$http_cookie"),
        Cors(expose='X"'),
    ],
    ids=str,
)
def test_a_setting_is_a_value_and_nothing_else(asked):
    with pytest.raises(NimctlError) as caught:
        cors.maps(asked)
        cors.preflight(asked)
    assert caught.value.id == "config-invalid"
    assert "NIM_CORS_" in caught.value.message


def test_quoting():
    assert quoted('a "b" \\c; {}', "X") == '"a \\"b\\" \\\\c; {}"'
    for text in ("a$b", "a\nb", "a\x00", "a" * 4000):
        with pytest.raises(NimctlError):
            quoted(text, "X")

"""Locations that only nginx itself is sent to: errors, preflights, and the halves of the metrics."""

from entrypoint.front import cors, refusals
from entrypoint.front.blocks import NO_STORE, UNREADY, block, headers_of
from entrypoint.front.model import Front
from entrypoint.state import State

# What nginx puts together for `/v1/metrics`: https://nginx.org/en/docs/http/ngx_http_ssi_module.html
METRICS_PAGE = '<!--# include virtual="/internal/metrics/ours" --><!--# include virtual="/internal/metrics/engine" -->'


def error_pages(front: Front) -> str:
    """Which of them tells which error."""
    lines = [
        f"error_page {r.code} ={r.status} /internal/errors/{r.code};" for r in refusals.refusals(front.max_body_mib)
    ]
    lines.append("error_page 496 =403 /internal/errors/403;")
    lines.append("error_page 503 /internal/refusal;")
    lines.append(f"error_page {UNREADY} =503 /internal/unready;")
    return "\n".join(lines)


def internal(front: Front, state: State) -> str:
    """All of them."""
    blocks = [_error_location(refusal, front) for refusal in refusals.refusals(front.max_body_mib)]
    blocks.append(_refusal_location(front, state))
    blocks.append(_preflight(front))
    blocks.append(block("= /internal/unready", headers_of(front, NO_STORE), f'alias "{state.public}/unready.json";'))
    blocks.append(_nothing(front))
    ours = [f'alias "{state.metrics}";', "error_page 404 = /internal/nothing;", "log_not_found off;"]
    blocks.append(block("= /internal/metrics/ours", *ours))
    blocks.append(_engine_metrics())
    return "\n".join(blocks)


def _error_location(refusal: refusals.Refusal, front: Front) -> str:
    return block(
        f"= /internal/errors/{refusal.code}",
        headers_of(front, NO_STORE, *refusal.headers),
        f"if ($shape = anthropic) {{ return {refusal.status} '{refusal.anthropic_body()}'; }}",
        f"return {refusal.status} '{refusal.openai_body()}';",
    )


def _refusal_location(front: Front, state: State) -> str:
    refusal = refusals.NOT_READY
    return block(
        "= /internal/refusal",
        headers_of(front, NO_STORE, *refusal.headers),
        f"if ($shape = anthropic) {{ return {refusal.status} '{refusal.anthropic_body()}'; }}",
        f'alias "{state.public}/refusal.json";',
    )


def _preflight(front: Front) -> str:
    return block(
        "= /internal/preflight",
        headers_of(front, ("Allow", "$allow")),
        cors.preflight(front.cors),
        "return 204;",
    )


def _nothing(front: Front) -> str:
    """What takes the place of metrics that are not there; whoever asks for it from outside asks for nothing we have."""
    missing = next(r for r in refusals.refusals(front.max_body_mib) if r.code == 404)
    guard = f"""if ($route = "") {{ return 404 '{missing.openai_body()}'; }}"""
    return block("= /internal/nothing", headers_of(front, NO_STORE), guard, "return 200 '';")


def _engine_metrics() -> str:
    """Plain text whatever the scraper would like: it is the second half of a text of that form."""
    return block(
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

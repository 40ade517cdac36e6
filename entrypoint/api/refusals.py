"""A request that is against a rule, and the bodies in which clients of each dialect expect to read about it."""

import json
from typing import Any, Literal

Dialect = Literal["openai", "anthropic"]

# https://docs.anthropic.com/en/api/errors
_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_OPENAI_KINDS = {400: "BadRequestError", 404: "NotFoundError", 413: "RequestTooLargeError", 415: "BadRequestError"}


class RefusedError(Exception):
    """The request is against a rule; the text says which, `parameter` where, `status` what HTTP calls it."""

    def __init__(self, text: str, parameter: str | None = None, status: int = 400) -> None:
        super().__init__(text)
        self.parameter = parameter
        self.status = status


def shown(value: object, limit: int = 60) -> str:
    """A value of the request as an error may repeat it: printable and short."""
    return ascii(value)[:limit]


def dialect_of(path: str) -> Dialect:
    """Whose errors the clients of this route can read."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


def error_body(
    dialect: Dialect, status: int, text: str, parameter: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """The error in the shape of the dialect.

    OpenAI: https://platform.openai.com/docs/guides/error-codes, Anthropic: https://docs.anthropic.com/en/api/errors
    """
    if dialect == "anthropic":
        named = _ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": named, "message": text}}
    named = kind or _OPENAI_KINDS.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    return {"error": {"message": text, "type": named, "param": parameter, "code": status}}


def encoded(document: dict[str, Any]) -> bytes:
    """The body as it is sent; ASCII, so that no text in it can fail to be encoded."""
    return json.dumps(document).encode("ascii")

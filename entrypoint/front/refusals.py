"""Errors that nginx itself answers, as data: in OpenAI's shape, or in Anthropic's on Anthropic's routes.

Errors of the engine pass as they are. https://platform.openai.com/docs/guides/error-codes ,
https://docs.anthropic.com/en/api/errors
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """`code` is nginx's (it has some of its own), `status` what the client sees, `headers` what comes with it."""

    code: int
    status: int
    kind: str
    anthropic: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def openai_body(self) -> str:
        """The body for OpenAI's clients."""
        return _compact({"error": self._details()})

    def anthropic_body(self) -> str:
        """The body for Anthropic's clients."""
        return _compact({"type": "error", "error": {"type": self.anthropic, "message": self.message}})

    def _details(self) -> dict[str, object]:
        return {"message": self.message, "type": self.kind, "param": None, "code": self.status}


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


NOT_READY = Refusal(
    503,
    503,
    "ServiceUnavailableError",
    "overloaded_error",
    "The service is not ready: see /v1/health/startup, then try again",
    (("Retry-After", "5"),),
)


def refusals(max_body_mib: int) -> tuple[Refusal, ...]:
    """Every error of the front but `NOT_READY`, whose message is a file that changes with the start.

    494 to 497 are nginx's own: https://nginx.org/en/docs/http/ngx_http_ssl_module.html#errors
    """
    wrong, bad = "BadRequestError", "invalid_request_error"
    broken, late = "InternalServerError", "api_error"
    allow = (("Allow", "$allow"),)
    unauthorised = (("WWW-Authenticate", "Bearer"),)
    retry = (("Retry-After", "5"),)
    needs_key = "A valid key is needed: Authorization: Bearer KEY, or x-api-key: KEY"
    size = f"The request body is larger than {max_body_mib} MiB, the limit that NIM_MAX_BODY_MIB sets"
    refused_certificate = "The client certificate is not accepted: it must be valid and of an authority known here"
    elsewhere = "This node has no API: it follows another one, which has (NIM_LEADER_ADDRESS)"
    return (
        Refusal(400, 400, wrong, bad, "The request line or a header cannot be understood"),
        Refusal(401, 401, "AuthenticationError", "authentication_error", needs_key, unauthorised),
        Refusal(403, 403, "PermissionDeniedError", "permission_error", "A client certificate is needed"),
        Refusal(404, 404, "NotFoundError", "not_found_error", "There is no such route"),
        Refusal(405, 405, "MethodNotAllowedError", bad, "This route does not take this method", allow),
        Refusal(408, 408, "RequestTimeoutError", bad, "The request did not arrive in time"),
        Refusal(411, 411, wrong, bad, "A Content-Length is needed"),
        Refusal(413, 413, "RequestTooLargeError", "request_too_large", size),
        Refusal(414, 414, wrong, bad, "The address is too long"),
        Refusal(415, 415, "UnsupportedMediaTypeError", bad, "The body must be sent without Content-Encoding"),
        Refusal(421, 421, "MisdirectedRequestError", bad, elsewhere),
        Refusal(494, 431, wrong, bad, "The headers are too large"),
        Refusal(495, 403, "PermissionDeniedError", "permission_error", refused_certificate),
        Refusal(497, 400, wrong, bad, "This port speaks HTTPS: use https://"),
        Refusal(500, 500, broken, late, "The front could not handle the request"),
        Refusal(501, 501, wrong, bad, "This Transfer-Encoding is not supported"),
        Refusal(502, 502, "BadGatewayError", late, "The engine does not answer", retry),
        Refusal(504, 504, "GatewayTimeoutError", late, "The engine took longer than an hour"),
        Refusal(505, 505, wrong, bad, "HTTP/1.0 and HTTP/1.1 are spoken here"),
    )

"""Where traces go, and how: our variables beside the standard's own. Pure.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ ; of the protocol vLLM reads only the variable for traces:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/tracing/otel.py
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from nimctl.core.errors import NimctlError

PROTOCOL_OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_OF_TRACES, _GENERAL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
_GRPC, _HTTP = "grpc", "http/protobuf"
_HTTP_PORT, _HTTP_PATH = 4318, "/v1/traces"


def endpoint(asked: str | None, environ: Mapping[str, str]) -> str | None:
    """The address that vLLM takes: `asked`, else the standard's; None where there is none. Raises `config-invalid`.

    Over HTTP it is that of the traces alone, which the standard's general one is not: its path is added.
    """
    of_traces = environ.get(_OF_TRACES)
    address = asked or of_traces or environ.get(_GENERAL)
    if not address:
        return None
    general = address != of_traces and not urlsplit(address).path.strip("/")
    return address.rstrip("/") + _HTTP_PATH if general and protocol(address, environ) == _HTTP else address


def protocol(address: str, environ: Mapping[str, str]) -> str:
    """What was asked for, else what the port is for. Raises `config-invalid`."""
    asked = environ.get(PROTOCOL_OF_TRACES) or environ.get(_PROTOCOL)
    if asked is None:
        try:
            return _HTTP if urlsplit(address).port == _HTTP_PORT else _GRPC
        except ValueError:  # an address with no number for a port: whoever connects says so
            return _GRPC
    if asked not in (_GRPC, _HTTP):
        raise NimctlError(
            "config-invalid",
            f"{_PROTOCOL}={asked} cannot be used",
            cause=f"vLLM knows {_GRPC} and {_HTTP}",
            fix="Set it to one of these, or unset it.",
        )
    return asked

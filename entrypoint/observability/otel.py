"""OpenTelemetry: what the engine is told so that its traces go where they were asked to. Pure.

vLLM sends traces by OTLP, reads the standard's own variables for the rest (headers, certificates, sampling), and of
the protocol only the variable for traces: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/tracing/otel.py ,
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

import importlib.util
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from entrypoint.settings import Settings
from nimctl.core.errors import NimctlError

# They may hold a key: the user names it for the one who sends the traces, which is the engine.
FAMILY = "OTEL_"
_PROTOCOL, _OF_TRACES = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("grpc", "http/protobuf")
_HTTP_PORT, _HTTP_PATH = 4318, "/v1/traces"
_PACKAGE = "opentelemetry.exporter.otlp"


def is_installed() -> bool:
    """Whether what vLLM imports to send traces lies beside us, as it does in our images."""
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def variables(
    settings: Settings, environ: Mapping[str, str], *, installed: Callable[[], bool] = is_installed
) -> dict[str, str]:
    """Variables for the engine beside `OTEL_*`, which pass as they are; none where no traces were asked for.

    Raises `config-invalid` for what vLLM would fail with during its start.
    """
    if not settings.otel or settings.otel_exporter == "none":
        return {}
    if settings.otel_exporter == "console":
        raise _invalid(
            "NIM_OTEL_TRACES_EXPORTER=console cannot be used",
            "vLLM sends traces by OTLP alone",
            "Set NIM_OTEL_TRACES_EXPORTER=otlp and NIM_OTEL_EXPORTER_OTLP_ENDPOINT, or none.",
        )
    if endpoint(settings, environ) is None:
        raise _invalid(
            "NIM_ENABLE_OTEL=1 needs an address",
            "neither NIM_OTEL_EXPORTER_OTLP_ENDPOINT nor OTEL_EXPORTER_OTLP_ENDPOINT is set",
            "Set NIM_OTEL_EXPORTER_OTLP_ENDPOINT to your collector, such as http://collector:4317.",
        )
    if settings.engine_executable is None and not installed():
        raise _invalid(
            "NIM_ENABLE_OTEL=1 cannot be used",
            f"the Python packages of OpenTelemetry ({_PACKAGE}) are not installed beside the engine",
            "Use an image that has them, as nimctl's own do, or leave NIM_ENABLE_OTEL unset.",
        )
    name = settings.otel_service_name or environ.get("OTEL_SERVICE_NAME") or "nimctl"
    return {"OTEL_SERVICE_NAME": name, _OF_TRACES: _protocol(settings, environ)}


def endpoint(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Where the engine sends traces (`--otlp-traces-endpoint`): our variable, or the standard's; None: nowhere.

    Over HTTP the address that vLLM wants is that of the traces, which the standard's general one is not.
    """
    if not settings.otel or settings.otel_exporter == "none":
        return None
    of_traces = environ.get(_ENDPOINTS[0])
    address = settings.otel_endpoint or of_traces or environ.get(_ENDPOINTS[1])
    if not address:
        return None
    general = address != of_traces and not urlsplit(address).path.strip("/")
    return address.rstrip("/") + _HTTP_PATH if general and _protocol(settings, environ) == _PROTOCOLS[1] else address


def _protocol(settings: Settings, environ: Mapping[str, str]) -> str:
    asked = environ.get(_OF_TRACES) or environ.get(_PROTOCOL)
    if asked is not None:
        if asked not in _PROTOCOLS:
            raise _invalid(
                f"{_PROTOCOL}={asked} cannot be used",
                f"vLLM knows {' and '.join(_PROTOCOLS)}",
                "Set it to one of these, or unset it.",
            )
        return asked
    address = settings.otel_endpoint or next((environ[n] for n in _ENDPOINTS if environ.get(n)), "")
    try:
        port = urlsplit(address).port
    except ValueError:
        port = None
    return _PROTOCOLS[1] if port == _HTTP_PORT else _PROTOCOLS[0]


def _invalid(message: str, cause: str, fix: str) -> NimctlError:
    return NimctlError("config-invalid", message, cause=cause, fix=fix)

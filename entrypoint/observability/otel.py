"""OpenTelemetry: what the engine is told so that its traces go where they were asked to.

vLLM sends traces by OTLP, and reads the standard's own variables for the rest (headers, certificates, sampling):
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/tracing/otel.py
"""

import importlib.util
from collections.abc import Callable, Mapping

from entrypoint.settings import Settings
from entrypoint.settings.telemetry import PROTOCOL_OF_TRACES, protocol
from nimctl.core.errors import NimctlError

# They may hold a key: the user names it for the one who sends the traces, which is the engine.
FAMILY = "OTEL_"
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
    if settings.otel_endpoint is None:
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
    return {"OTEL_SERVICE_NAME": name, PROTOCOL_OF_TRACES: protocol(settings.otel_endpoint, environ)}


def _invalid(message: str, cause: str, fix: str) -> NimctlError:
    return NimctlError("config-invalid", message, cause=cause, fix=fix)

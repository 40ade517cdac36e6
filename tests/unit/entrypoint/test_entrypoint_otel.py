"""Traces: which variables and which address the engine gets, and what is refused before it starts."""

from pathlib import Path

import pytest

from entrypoint.observability import otel
from entrypoint.settings import read
from nimctl.core.errors import NimctlError

ROOT = Path(__file__).parents[3]
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-exporter-otlp-proto-http")
ON = {"NIM_RECIPE": "demo", "NIM_ENABLE_OTEL": "1"}
AT = "NIM_OTEL_EXPORTER_OTLP_ENDPOINT"


def told(**environ: str) -> tuple[str | None, dict[str, str]]:
    environ = {**ON, **environ}
    settings = read(environ)
    return settings.otel_endpoint, otel.variables(settings, environ, installed=lambda: True)


@pytest.mark.parametrize(
    ("environ", "endpoint", "protocol"),
    [
        ({AT: "http://c:4317"}, "http://c:4317", "grpc"),
        ({AT: "http://c:4318"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({AT: "http://c:4318/own"}, "http://c:4318/own", "http/protobuf"),
        ({AT: "https://c/", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "https://c/v1/traces", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, "http://c:4318", "http/protobuf"),
        (
            {AT: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "x", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "http://c:4318",
            "grpc",
        ),
    ],
)
def test_address_and_protocol(environ: dict[str, str], endpoint: str, protocol: str):
    assert told(**environ) == (
        endpoint,
        {"OTEL_SERVICE_NAME": "nimctl", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol},
    )


def test_the_service_s_name():
    assert told(**{AT: "http://c", "OTEL_SERVICE_NAME": "theirs"})[1]["OTEL_SERVICE_NAME"] == "theirs"
    both = {AT: "http://c", "OTEL_SERVICE_NAME": "theirs", "NIM_OTEL_SERVICE_NAME": "ours"}
    assert told(**both)[1]["OTEL_SERVICE_NAME"] == "ours"


def test_nothing_where_no_traces_were_asked_for():
    assert told(NIM_ENABLE_OTEL="0", OTEL_EXPORTER_OTLP_ENDPOINT="http://c") == (None, {})
    assert told(NIM_OTEL_TRACES_EXPORTER="none", **{AT: "http://c"})[1] == {}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "needs an address"),
        ({"NIM_OTEL_TRACES_EXPORTER": "console", AT: "http://c"}, "OTLP alone"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", AT: "http://c"}, "grpc and http/protobuf"),
    ],
)
def test_what_vllm_would_fail_with_is_refused_before_it_starts(environ: dict[str, str], words: str):
    with pytest.raises(NimctlError) as caught:
        told(**environ)
    assert caught.value.id == "config-invalid"
    assert words in f"{caught.value.message} {caught.value.cause}"


def test_missing_packages_are_named():
    environ = {**ON, AT: "http://c"}
    with pytest.raises(NimctlError, match="cannot be used") as caught:
        otel.variables(read(environ), environ, installed=lambda: False)
    assert "opentelemetry" in caught.value.cause


def test_the_packages_are_in_the_locks_of_our_images():
    for device in ("cpu", "cuda"):
        lock = (ROOT / "images" / device / "requirements.txt").read_text()
        for package in PACKAGES:
            assert f"\n{package}==" in lock

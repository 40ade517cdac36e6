"""What was asked of this container, as one value; and a row of the table that it is read by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nimctl.core.secret import Secret

Source = Literal["command line", "environment", "image", "default"]


@dataclass(frozen=True, eq=False)
class Settings:
    """Everything that was asked of this container. Times in seconds; None means: not asked, decide from the recipe.

    `sources` tells for each variable where its value came from, where `image` stands for the image's own model;
    `unknown` are sentences on those that do nothing; `access` tells which keys and ways to the sources are set;
    `engine_values` are the variables that are options of the engine; `engine_args` are arguments for it, lowest
    precedence first; `secrets` are only there to be masked.
    The meaning of each field is the `help` of its variable: `entrypoint.settings.variables`.
    """

    # What is served
    recipe: str | None
    model_path: str | None
    model_profile: str | None
    served_names: tuple[str, ...]
    max_images: int
    max_videos: int | None
    max_model_len: int | None
    tensor_parallel_size: int | None
    pipeline_parallel_size: int | None
    passthrough_args: tuple[str, ...]
    gpus: str
    peft_source: Path | None
    weights_digest: str | None
    deterministic: bool
    # Where things lie
    cache_path: Path
    cache_probe_timeout: float
    compile_cache_gib: int
    prefetch: Literal["auto", "on", "off"]
    engine_executable: str | None
    engine_device: Literal["cuda", "cpu"] | None
    state_dir: Path
    # The front
    port: int
    host: str
    health_port: int | None
    cors_origins: str
    cors_methods: str
    cors_headers: str
    cors_expose: str
    cors_max_age: int
    ssl_mode: Literal["TLS", "MTLS"] | None
    ssl_key: Path | None
    ssl_certs: Path | None
    ssl_ca: Path | None
    api_keys_file: Path | None
    max_body_mib: int
    allowed_media_domains: tuple[str, ...]
    sagemaker: bool
    # What is told
    log_level: str
    jsonl: bool
    log_requests: bool
    otel: bool
    otel_endpoint: str | None
    otel_service_name: str | None
    otel_exporter: Literal["otlp", "console", "none"]
    # Care for the engine
    drain_seconds: int
    stall_seconds: float
    canary_interval: float
    canary_timeout: float
    engine_restarts: int
    engine_restart_window: float
    # Several machines
    nodes: int
    node_rank: int
    leader_address: str | None
    leader_port: int
    nodes_timeout: float
    # What is known beside the table
    engine_values: Mapping[str, Any] = field(default_factory=dict)
    command_line_args: tuple[str, ...] = ()
    dry_run: bool = False
    secrets: tuple[Secret, ...] = ()
    sources: Mapping[str, Source] = None  # type: ignore[assignment]  # always given by read()
    access: Mapping[str, bool] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def engine_args(self) -> tuple[str, ...]:
        """What the user passes to the engine: `NIM_PASSTHROUGH_ARGS`, then the command line, which wins."""
        return self.passthrough_args + self.command_line_args

"""The table of variables: name, field, reader, default, meaning. This is the contract between the image and whoever
starts it (`docker run -e`, nimctl, an operator). The names follow NVIDIA's where NVIDIA has one:
https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html
"""

from collections.abc import Mapping

from entrypoint.settings.readers import (
    ARGUMENTS,
    CONTENT_DIGEST,
    HEADER,
    HOST,
    HOST_NAME,
    MEDIA_HOSTS,
    PATH,
    PORT,
    WORDS,
    seconds,
)
from nimctl.core.engine_variables import ADAPTERS, BATCHES, DRAFTS, ENGINE_VARIABLES, PROMPTS
from nimctl.core.stages import DRAIN_SECONDS
from nimctl.core.variables import NOT_SWITCH, SWITCH, TEXT, Variable, count, one_of

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_SERVED = (
    Variable("NIM_RECIPE", "recipe", TEXT, None, "The recipe to serve; default: NIM_MODEL_PATH, else the image's own."),
    Variable(
        "NIM_MODEL_PATH", "model_path", TEXT, None, "Where the weights are: a folder or a source URI.",
        aliases=("NIM_MODEL_NAME", "NIM_FT_MODEL"),
    ),
    Variable("NIM_MODEL_PROFILE", "model_profile", TEXT, None, "Id or name of the profile; default: by the GPUs."),
    Variable(
        "NIM_SERVED_MODEL_NAME", "served_names", WORDS, "", "Model names in the API; default: the recipe's.",
        option="served-model-name", aliases=("NIM_CUSTOM_MODEL_NAME",),
    ),
    Variable("NIM_GPUS", "gpus", TEXT, "all", "Which visible GPUs to use: `all`, `none`, indices or UUIDs."),
    Variable(
        "NIM_TENSOR_PARALLEL_SIZE", "tensor_parallel_size", count(1, 1024), None, "Tensor-parallel size.",
        option="tensor-parallel-size",
    ),
    Variable(
        "NIM_PIPELINE_PARALLEL_SIZE", "pipeline_parallel_size", count(1, 1024), None, "Pipeline-parallel size.",
        option="pipeline-parallel-size",
    ),
    Variable(
        "NIM_MAX_MODEL_LEN", "max_model_len", count(1), None, "Context length in tokens; default: the model's.",
        option="max-model-len",
    ),
    Variable(
        "NIM_MAX_IMAGES_PER_PROMPT", "max_images", count(0, 10000), "4", "How many images a request may hold.",
        option="limit-mm-per-prompt",
    ),
    Variable(
        "NIM_MAX_VIDEOS_PER_PROMPT", "max_videos", count(0, 10000), None, "How many videos; default: the recipe's.",
        option="limit-mm-per-prompt",
    ),
    Variable("NIM_PASSTHROUGH_ARGS", "passthrough_args", ARGUMENTS, "", "More engine arguments, as in a shell."),
    Variable(
        "NIM_FORCE_DETERMINISTIC", "deterministic", SWITCH, "0",
        "1: an answer does not depend on what is served beside it; slower, GPUs only.",
    ),
)  # fmt: skip

_ADAPTERS = (
    Variable(
        "NIM_PEFT_SOURCE", "peft_source", PATH, None, "A folder of LoRA adapters, one sub-folder each.",
        option="lora-modules",
    ),
)  # fmt: skip

_PLACES = (
    Variable("NIM_CACHE_PATH", "cache_path", PATH, "/opt/nim/.cache", "The cache folder, mounted from the host."),
    Variable(
        "NIM_CACHE_PROBE_TIMEOUT", "cache_probe_timeout", seconds(), "60", "Seconds for the cache to answer."
    ),
    Variable(
        "NIM_COMPILE_CACHE_GIB", "compile_cache_gib", count(0), "32", "Most GiB of compiled code kept in the cache."
    ),
    Variable(
        "NIM_WEIGHTS_PREFETCH", "prefetch", one_of("auto", "on", "off"), "auto",
        "Read the weights into the page cache beside the engine's own start.",
    ),
    Variable("NIM_ENGINE_EXECUTABLE", "engine_executable", TEXT, None, "Another `vllm` than the installed one."),
    Variable("NIMCTL_ENGINE_DEVICE", "engine_device", one_of("cuda", "cpu"), None, "Set by the image."),
    Variable(
        "NIMCTL_WEIGHTS_DIGEST", "weights_digest", CONTENT_DIGEST, None,
        "Serve no other weights than these; `nimctl run --locked` sets it.",
    ),
    Variable("NIMCTL_STATE_DIR", "state_dir", PATH, "/tmp/nimctl", "Sockets and reports."),  # noqa: S108 (owner checked)
)  # fmt: skip

_FRONT = (
    Variable("NIM_SERVER_PORT", "port", PORT, "8000", "The public port.", aliases=("NIM_HTTP_API_PORT",)),
    Variable("NIM_SERVER_HOST", "host", HOST, "0.0.0.0", "The address that is listened on."),  # noqa: S104 (the container's)
    Variable("NIM_HEALTH_PORT", "health_port", PORT, None, "A port for health and metrics alone."),
    Variable("NIM_CORS_ALLOW_ORIGINS", "cors_origins", HEADER, "*", "Origins that browsers may call from."),
    Variable(
        "NIM_CORS_ALLOW_METHODS", "cors_methods", HEADER, "GET, POST, PUT, DELETE, PATCH, OPTIONS",
        "Methods that browsers may use.",
    ),
    Variable(
        "NIM_CORS_ALLOW_HEADERS", "cors_headers", HEADER, "Content-Type, Authorization, X-Request-Id",
        "Request headers that browsers may send.",
    ),
    Variable(
        "NIM_CORS_EXPOSE_HEADERS", "cors_expose", HEADER, "X-Request-Id", "Response headers that browsers may read."
    ),
    Variable("NIM_CORS_MAX_AGE", "cors_max_age", count(0, 86400), "3600", "Seconds that browsers remember this."),
    Variable(
        "NIM_SSL_MODE", "ssl_mode", one_of("TLS", "MTLS", "DISABLED", fold=str.upper), None,
        "Inbound TLS; with MTLS clients need a certificate too.",
    ),
    Variable("NIM_SSL_KEY_PATH", "ssl_key", PATH, None, "The server's private key, PEM."),
    Variable("NIM_SSL_CERTS_PATH", "ssl_certs", PATH, None, "The server's certificate and its chain, PEM."),
    Variable("NIM_SSL_CA_CERTS_PATH", "ssl_ca", PATH, None, "The authorities of client certificates, PEM."),
    Variable("NIM_API_KEYS_FILE", "api_keys_file", PATH, None, "A file of keys; a client needs one."),
    Variable("NIM_MAX_BODY_MIB", "max_body_mib", count(1, 65536), "64", "Most MiB of a request's body."),
    Variable(
        "NIM_ALLOWED_MEDIA_DOMAINS", "allowed_media_domains", MEDIA_HOSTS, "",
        "Hosts of image URLs, such as `a.example, *.b.example`; empty: any public one; `none`: no URL.",
    ),
    Variable("NIM_SAGEMAKER_MODE", "sagemaker", SWITCH, "0", "The two routes that SageMaker calls."),
)  # fmt: skip

_TOLD = (
    Variable("NIM_LOG_LEVEL", "log_level", one_of(*LEVELS, fold=str.upper), "INFO", "Least level that is logged."),
    Variable("NIM_JSONL_LOGGING", "jsonl", SWITCH, "0", "Log lines as JSON, ours and the engine's alike."),
    Variable(
        "NIM_DISABLE_LOG_REQUESTS", "log_requests", NOT_SWITCH, "1", "0: prompts are logged.",
        option="enable-log-requests",
    ),
    Variable("NIM_ENABLE_OTEL", "otel", SWITCH, "0", "Traces by OpenTelemetry."),
    Variable(
        "NIM_OTEL_EXPORTER_OTLP_ENDPOINT", "otel_endpoint", TEXT, None, "Where traces go, such as http://host:4317.",
        option="otlp-traces-endpoint",
    ),
    Variable("NIM_OTEL_SERVICE_NAME", "otel_service_name", TEXT, None, "The service's name in traces."),
    Variable(
        "NIM_OTEL_TRACES_EXPORTER", "otel_exporter", one_of("otlp", "console", "none"), "otlp",
        "How traces leave; the engine has OTLP alone.",
    ),
)  # fmt: skip

_CARE = (
    Variable(
        "NIM_DRAIN_SECONDS", "drain_seconds", count(0, 86400), str(DRAIN_SECONDS), "Seconds after SIGTERM.",
        option="shutdown-timeout",
    ),
    Variable(
        "NIM_ENGINE_STALL_SECONDS", "stall_seconds", seconds(), "600", "Seconds that a start may stand still."
    ),
    Variable(
        "NIM_CANARY_INTERVAL", "canary_interval", seconds(zero=True), "60", "Seconds between canary prompts; 0: none."
    ),
    Variable("NIM_CANARY_TIMEOUT", "canary_timeout", seconds(), "120", "Seconds for a canary prompt's answer."),
    Variable(
        "NIM_ENGINE_RESTARTS", "engine_restarts", count(0, 1000), "3", "How often a dead engine is started again."
    ),
    Variable(
        "NIM_ENGINE_RESTART_WINDOW", "engine_restart_window", seconds(), "3600", "Within so many seconds."
    ),
)  # fmt: skip

_NODES = (
    Variable("NIM_NUM_COMPUTE_NODES", "nodes", count(1, 1024), "1", "Machines that serve together.", option="nnodes"),
    Variable("NIM_NODE_RANK", "node_rank", count(0, 1023), "0", "This machine's number, from 0.", option="node-rank"),
    Variable(
        "NIM_LEADER_ADDRESS", "leader_address", HOST_NAME, None, "Where machine 0 is.", option="master-addr"
    ),
    Variable("NIM_LEADER_PORT", "leader_port", PORT, "29501", "The port there.", option="master-port"),
    Variable("NIM_NODES_TIMEOUT", "nodes_timeout", seconds(), "1800", "Seconds for the other machines to come."),
)  # fmt: skip

# `VARIABLES` fill fields of the settings; the others are options of the engine and nothing else.
GROUPS: Mapping[str, tuple[Variable, ...]] = {
    "What is served": _SERVED,
    "Memory and batches": BATCHES,
    "Prompts and answers": PROMPTS,
    "Drafts (speculative decoding)": DRAFTS,
    "LoRA adapters": (*_ADAPTERS, *ADAPTERS),
    "Places": _PLACES,
    "The server": _FRONT,
    "Logs and traces": _TOLD,
    "Care for the engine": _CARE,
    "Several machines": _NODES,
}
VARIABLES: tuple[Variable, ...] = (*_SERVED, *_ADAPTERS, *_PLACES, *_FRONT, *_TOLD, *_CARE, *_NODES)

# What NVIDIA's operator says besides where several machines may serve: `entrypoint.engine.nodes` holds it against the
# settings.
OF_THE_OPERATOR: Mapping[str, str] = {
    "NIM_MULTI_NODE": "1: a start without the number of machines is refused; 0: alone, unless that number is set.",
    "NIM_LEADER_ROLE": "1 for rank 0 and 0 for every other one; a start with another rank, or none, is refused.",
}
NAMES = frozenset(OF_THE_OPERATOR).union(name for v in (*VARIABLES, *ENGINE_VARIABLES) for name in (v.name, *v.aliases))

# Keys and ways to the sources of weights. `nimctl.core.fetch.from_environment` reads them when the weights are fetched,
# key files included, and nothing else ever does: of these, only whether they are set is told.
ACCESS: Mapping[str, str] = {
    "HF_TOKEN": "The key for hf:// sources, where they need one; or HF_TOKEN_FILE, the path of a file that holds it.",
    "HF_TOKEN_FILE": "The file of that key, read when the weights are fetched.",
    "HF_ENDPOINT": "The Hub, or a mirror of it; default: https://huggingface.co.",
    "HF_HUB_OFFLINE": "1: use no network; what the cache holds must be enough.",
    "NGC_API_KEY": "The key for ngc:// sources, where they need one; NGC_CLI_API_KEY comes before it.",
    "NGC_CLI_API_KEY": "The same key under the name that NVIDIA's command line uses.",
    "NGC_API_KEY_FILE": "The file of that key, read when the weights are fetched.",
    "NGC_API_ENDPOINT": "NGC's API; default: https://api.ngc.nvidia.com.",
    "NGC_AUTH_ENDPOINT": "NGC's key exchange; default: https://authn.nvidia.com.",
    "AWS_ACCESS_KEY_ID_FILE": "The file of that key for s3:// sources.",
    "AWS_SECRET_ACCESS_KEY_FILE": "The file of that key for s3:// sources.",
    "AWS_SESSION_TOKEN_FILE": "The file of that key for s3:// sources.",
    "NIM_REPOSITORY_OVERRIDE": "The mirror that takes the place of every remote source.",
}
# Families of the same kind: whatever an object store's own library reads.
ACCESS_FAMILIES = {"AWS_": "Access to s3:// sources.", "GOOGLE_": "Access to gs:// sources."}

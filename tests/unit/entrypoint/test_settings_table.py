"""The table of variables: complete against NIM's names, and true to the engine that is installed."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from entrypoint.settings import read
from entrypoint.settings.replaced import REPLACED
from entrypoint.settings.strange import engine_names
from entrypoint.settings.variables import ACCESS, ACCESS_FAMILIES, GROUPS, NAMES
from entrypoint.weights import runtime_config
from nimctl.core.engine_options import _ABOUT as ABOUT
from nimctl.core.engine_options import _SHORT as SHORT
from nimctl.core.engine_options import OBJECTS, parse_options
from nimctl.core.engine_variables import values_of
from nimctl.core.errors import NimctlError

ROOT = Path(__file__).parents[3]
ROWS = [variable for group in GROUPS.values() for variable in group]

# https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html and the index
# https://docs.nvidia.com/nim/large-language-models/2.0.10/genindex.html
OF_2 = """
NGC_API_KEY NGC_CLI_API_KEY HF_TOKEN MODELSCOPE_API_TOKEN AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION
AWS_PROFILE GOOGLE_APPLICATION_CREDENTIALS NIM_MODEL_PATH NIM_MODEL_PROFILE NIM_SERVED_MODEL_NAME NIM_PASSTHROUGH_ARGS
NIM_MAX_MODEL_LEN NIM_TENSOR_PARALLEL_SIZE NIM_PIPELINE_PARALLEL_SIZE NIM_NUM_COMPUTE_NODES NIM_DISABLE_CUDA_GRAPH
NIM_TRUST_CUSTOM_CODE NIM_CACHE_PATH NIM_CACHE_PROBE_TIMEOUT NIM_DISABLE_MODEL_DOWNLOAD NIM_REPOSITORY_OVERRIDE
NIM_SERVER_PORT NIM_HEALTH_PORT NIM_NGINX_DIR NIM_MIDDLEWARE_CONFIG_PATH NIM_CORS_ALLOW_ORIGINS NIM_CORS_ALLOW_METHODS
NIM_CORS_ALLOW_HEADERS NIM_CORS_EXPOSE_HEADERS NIM_CORS_MAX_AGE NIM_SSL_MODE NIM_SSL_KEY_PATH NIM_SSL_CERTS_PATH
NIM_SSL_CA_CERTS_PATH NIM_LOG_LEVEL NIM_JSONL_LOGGING NIM_CAPTURE_ENABLE NIM_CAPTURE_ARGS NIM_SPECDEC_ENABLE
NIM_SPECDEC_ARGS NIM_DRAFT_MODEL_PATH NIM_PEFT_SOURCE NIM_PEFT_REFRESH_INTERVAL NIM_PEFT_API_TIMEOUT_SECS
NIM_SAGEMAKER_MODE NIM_DYNAMO_SINGLE NIM_DYNAMO_WORKER NIM_DYNAMO_FRONTEND DYN_HTTP_PORT
"""
# https://docs.nvidia.com/nim/vision-language-models/latest/configuration.html
OF_VLM = """
NIM_MAX_IMAGES_PER_PROMPT NIM_MAX_VIDEOS_PER_PROMPT NIM_NUM_SPECULATIVE_TOKENS NIM_MANIFEST_ALLOW_UNSAFE
NIM_DISABLE_LOG_REQUESTS NIM_KV_CACHE_PERCENT NIM_KVCACHE_PERCENT NIM_GPU_MEM_FRACTION
"""
# https://docs.nvidia.com/nim/large-language-models/latest/configuration.html
OF_1 = """
NIM_MODEL_NAME NIM_FT_MODEL NIM_CUSTOM_MODEL_NAME NIM_TAGS_SELECTOR NIM_LOW_MEMORY_MODE NIM_RELAX_MEM_CONSTRAINTS
NIM_MAX_NUM_SEQS NIM_MAX_BATCH_SIZE NIM_NUM_KV_CACHE_SEQ_LENS NIM_SCHEDULER_POLICY NIM_ENABLE_KV_CACHE_REUSE
NIM_ENABLE_KV_CACHE_HOST_OFFLOAD NIM_KV_CACHE_HOST_MEM_FRACTION NIM_GUIDED_DECODING_BACKEND
NIM_CUSTOM_GUIDED_DECODING_BACKENDS NIM_ENABLE_AUTO_TOOL_CHOICE NIM_TOOL_CALL_PARSER NIM_CHAT_TEMPLATE NIM_ENABLE_OTEL
NIM_OTEL_TRACES_EXPORTER NIM_OTEL_METRICS_EXPORTER NIM_OTEL_EXPORTER_OTLP_ENDPOINT NIM_OTEL_SERVICE_NAME
NIM_PER_REQ_METRICS_ENABLE NIM_ENABLE_PROMPT_LOGPROBS NIM_FORCE_DETERMINISTIC NIM_TOKENIZER_MODE
NIM_FORCE_TRUST_REMOTE_CODE NIM_ENABLE_DP_ATTENTION NIM_DISABLE_OVERLAP_SCHEDULING NIM_USE_SGLANG NIM_MAX_CPU_LORAS
NIM_MAX_GPU_LORAS NIM_SDK_USE_NATIVE_TLS NIM_SSL_CERT_PATH NIM_SDK_MAX_PARALLEL_DOWNLOAD_REQUESTS NIM_TELEMETRY_MODE
NIM_MANIFEST_PROFILE
"""
# https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/api/apps/v1alpha1/nimservice_types.go
OF_THE_OPERATOR = """
NIM_CACHE_PATH NIM_SERVER_PORT NIM_HTTP_API_PORT NIM_JSONL_LOGGING NIM_LOG_LEVEL OUTLINES_CACHE_DIR NIM_GRPC_API_PORT
NIM_TRITON_GRPC_PORT NIM_TRITON_METRICS_PORT NGC_API_KEY NIM_MULTI_NODE NIM_NUM_COMPUTE_NODES NIM_NODE_RANK
NIM_TENSOR_PARALLEL_SIZE NIM_PIPELINE_PARALLEL_SIZE NIM_LEADER_ROLE NIM_MPI_ALLOW_RUN_AS_ROOT CLUSTER_START_TIMEOUT
CLUSTER_SIZE GPUS_PER_NODE HF_HOME HF_ENDPOINT HF_HUB_OFFLINE NIM_SDK_USE_NATIVE_TLS NIM_ENGINE_MODEL_DOWNLOAD_ONLY
NIM_ENGINE_MODEL_PATH
"""


@pytest.mark.parametrize("name", sorted({*OF_2.split(), *OF_VLM.split(), *OF_1.split(), *OF_THE_OPERATOR.split()}))
def test_every_name_of_nim_is_a_variable_or_has_a_word_about_it(name):
    assert (name in NAMES or name in ACCESS or name.startswith(tuple(ACCESS_FAMILIES))) != (name in REPLACED)


def test_an_operator_starts_it_without_a_warning():
    said = {"NIM_MULTI_NODE": "0", "NIM_GRPC_API_PORT": "50051", "OUTLINES_CACHE_DIR": "/tmp/outlines", "HF_HOME": "/x"}
    said |= {"NIM_JSONL_LOGGING": "1", "NIM_LOG_LEVEL": "INFO", "NIM_HTTP_API_PORT": "8000", "NIM_SERVER_PORT": "8000"}
    service = {"NIM_LLM_SERVICE_HOST": "10.0.0.1", "NIM_LLM_PORT_8000_TCP_ADDR": "10.0.0.1", "NIM_LLM_PORT": "tcp://x"}
    settings = read({"NIM_RECIPE": "demo", **said, **service})
    assert (settings.unknown, settings.port, settings.jsonl) == ((), 8000, True)


@pytest.mark.parametrize("name", sorted(name for name, found in REPLACED.items() if not found.expected))
def test_a_replaced_name_is_told_once_with_what_takes_its_place(name):
    (said,) = read({"NIM_RECIPE": "demo", name: "1"}).unknown
    assert said == f"{name} does nothing here: {REPLACED[name].instead}"


def test_what_takes_the_place_of_a_name_exists():
    known = NAMES | set(ACCESS)
    for found in REPLACED.values():
        assert set(re.findall(r"\b(?:NIM|NIMCTL|HF)_[A-Z_]+\b", found.instead)) <= known
        named = re.findall(r"--([a-z-]+)", found.instead)
        assert set(named) <= engine_options()


def test_what_is_said_to_do_nothing_is_read_nowhere():
    sources = [path for path in (ROOT / "entrypoint").rglob("*.py") if path.name != "replaced.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [name for name in REPLACED if f'"{name}"' in text] == []


def test_the_engines_own_variables_are_known_without_importing_it():
    assert {"VLLM_LOGGING_LEVEL", "VLLM_CACHE_ROOT"} <= set(engine_names())
    told = read({"NIM_RECIPE": "demo", "VLLM_LOGGING_LEVEL": "INFO", "VLLM_LOGING_LEVEL": "INFO"}).unknown
    assert told == ("VLLM_LOGING_LEVEL is unknown to the installed engine; VLLM_LOGGING_LEVEL may be meant",)


def source_of(module: str) -> str:
    spec = find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / module).read_text(encoding="utf-8")


def annotated(*modules: str) -> dict[str, str]:
    """Each field of the engine's argument classes with its type, read and not run: an import takes seconds."""
    classes = ("EngineArgs", "AsyncEngineArgs", "BaseFrontendArgs", "FrontendArgs", "ServerArgs")
    return {
        node.target.id.replace("_", "-"): ast.unparse(node.annotation)
        for module in modules
        for body in ast.parse(source_of(module)).body
        if isinstance(body, ast.ClassDef) and (body.name in classes or body.name.endswith("FrontendArgs"))
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def engine_options() -> set[str]:
    found = annotated("engine/arg_utils.py", "entrypoints/launchers/cli_args.py")
    assert len(found) > 200
    return {*found} | {"headless", "api-server-count"}


@pytest.mark.parametrize("variable", [v for v in ROWS if v.option], ids=lambda v: v.name)
def test_every_engine_argument_of_the_table_is_the_engines(variable):
    assert variable.option in engine_options()


def test_other_lists_of_engine_arguments_are_the_engines_too():
    known = engine_options()
    assert known >= runtime_config._ALLOWED and set(runtime_config._KEYS) <= runtime_config._ALLOWED
    assert known >= OBJECTS and set(ABOUT) <= OBJECTS
    assert set(SHORT.values()) <= known


def test_every_argument_that_takes_an_object_is_put_together():
    known = annotated("engine/arg_utils.py")
    objects = {n for n, kind in known.items() if re.search(r"\bdict\b|Dict|\w+Config\b", kind) and "Type" not in kind}
    objects -= {"mamba-config"}  # a field that other arguments fill
    assert objects - OBJECTS == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIM_MAX_NUM_SEQS", "0"),
        ("NIM_MAX_BATCH_SIZE", "many"),
        ("NIM_SCHEDULER_POLICY", "max_utilization"),
        ("NIM_GPU_MEM_FRACTION", "90"),
        ("NIM_KV_CACHE_PERCENT", "nan"),
        ("NIM_DISABLE_CUDA_GRAPH", "maybe"),
        ("NIM_SPECDEC_ARGS", "[1]"),
        ("NIM_SPECDEC_ARGS", "{"),
        ("NIM_NUM_SPECULATIVE_TOKENS", "-1"),
        ("NIM_MAX_LORA_RANK", "9"),
        ("NIM_GUIDED_DECODING_BACKEND", "trtllm"),
        ("NIM_SSL_MODE", "tcp"),
        ("NIM_CORS_ALLOW_ORIGINS", 'https://a";}'),
        ("NIM_HEALTH_PORT", "0"),
        ("NIM_CANARY_TIMEOUT", "0"),
        ("NIM_CORS_MAX_AGE", "\u0661"),
    ],
)
def test_a_value_that_does_not_fit_is_one_error_with_name_value_and_way_out(name, value):
    with pytest.raises(NimctlError) as caught:
        read({"NIM_RECIPE": "demo", name: value})
    assert caught.value.id == "config-invalid"
    assert f"{name}={value}" in caught.value.message and name in caught.value.fix


def test_each_name_of_a_variable_sets_it_and_its_own_goes_first():
    assert values_of({"NIM_KVCACHE_PERCENT": "0.8"}) == {"NIM_KV_CACHE_PERCENT": 0.8}
    assert values_of({"NIM_GPU_MEM_FRACTION": "0.7", "NIM_KV_CACHE_PERCENT": "0.8"}) == {"NIM_KV_CACHE_PERCENT": 0.8}
    assert read({"NIM_MODEL_NAME": "/weights"}).model_path == "/weights"
    assert read({"NIM_RECIPE": "demo", "NIM_HTTP_API_PORT": "9000"}).port == 9000


def test_the_chapter_of_the_settings_is_current():
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert not [name for name in (*NAMES, *ACCESS, *REPLACED) if f"`{name}`" not in text]


def test_names_that_are_shortened_are_read_as_the_engine_reads_them():
    words = "-asc 2 -cc.mode 3 -ac {} --device-memory-utilization 0.5 -O2 --kv_cache_dtype fp8"
    names = [option.name for option in parse_options(words.split())]
    assert names == [
        "api-server-count", "compilation-config.mode", "attention-config", "gpu-memory-utilization",
        "optimization-level", "kv-cache-dtype",
    ]  # fmt: skip

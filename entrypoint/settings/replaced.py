"""Names of other versions of NIM that do nothing here: what to use instead, or why there is nothing to use.

Only read when such a name is set. The names and what they mean:
https://docs.nvidia.com/nim/large-language-models/latest/configuration.html (1.x),
https://docs.nvidia.com/nim/large-language-models/2.0.10/genindex.html (2.x) and
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/api/apps/v1alpha1/nimservice_types.go
"""

from collections.abc import Mapping
from typing import NamedTuple


class Replaced(NamedTuple):
    """What to know of a name that does nothing here; `expected` where whoever sets it means no harm and needs no word.

    An operator sets such names for every container alike.
    """

    instead: str
    expected: bool = False


_ONE_ENGINE = "this image has one engine, vLLM"
_NOT_NEEDED = "there is nothing to set"

REPLACED: Mapping[str, Replaced] = {
    # Which model
    "NIM_TAGS_SELECTOR": Replaced("use NIM_MODEL_PROFILE; `list-model-profiles` lists what it takes"),
    "NIM_MANIFEST_PROFILE": Replaced("use NIM_MODEL_PROFILE"),
    "NIM_MANIFEST_ALLOW_UNSAFE": Replaced("any model can be named with NIM_MODEL_PATH"),
    "NIM_DISABLE_MODEL_DOWNLOAD": Replaced("use HF_HUB_OFFLINE=1, which keeps every source from the network"),
    "NIM_ENGINE_MODEL_DOWNLOAD_ONLY": Replaced("use the action download-to-cache"),
    "NIM_ENGINE_MODEL_PATH": Replaced("use NIM_MODEL_PATH"),
    "NIM_REWARD_MODEL": Replaced("reward models are not served"),
    "NIM_REWARD_MODEL_STRING": Replaced("reward models are not served"),
    "NIM_REWARD_LOGITS_RANGE": Replaced("reward models are not served"),
    "MODELSCOPE_API_TOKEN": Replaced("modelscope:// is no source here; use hf://, ngc://, s3:// or gs://"),
    # Memory
    "NIM_LOW_MEMORY_MODE": Replaced("the plan makes room by itself; NIM_MAX_MODEL_LEN makes more"),
    "NIM_RELAX_MEM_CONSTRAINTS": Replaced("what may not fit starts with a warning; NIM_KV_CACHE_PERCENT gives more"),
    "NIM_NUM_KV_CACHE_SEQ_LENS": Replaced("use NIM_MAX_NUM_SEQS and NIM_MAX_MODEL_LEN"),
    "NIM_ENABLE_KV_CACHE_HOST_OFFLOAD": Replaced("use NIM_PASSTHROUGH_ARGS='--kv-offloading-size GIB'"),
    "NIM_KV_CACHE_HOST_MEM_FRACTION": Replaced("use NIM_PASSTHROUGH_ARGS='--kv-offloading-size GIB'"),
    # Engine
    "NIM_ENFORCE_EAGER": Replaced("use NIM_DISABLE_CUDA_GRAPH"),
    "NIM_ENABLE_PROMPT_LOGPROBS": Replaced("they are always on: ask for them with prompt_logprobs"),
    "NIM_CUSTOM_GUIDED_DECODING_BACKENDS": Replaced("NIM_GUIDED_DECODING_BACKEND chooses one that the engine has"),
    "NIM_ENABLE_DP_ATTENTION": Replaced("use NIM_PASSTHROUGH_ARGS='--data-parallel-size N'"),
    "NIM_USE_SGLANG": Replaced(_ONE_ENGINE),
    "NIM_USE_TRTLLM_LEGACY_BACKEND": Replaced(_ONE_ENGINE),
    "NIM_DYNAMO_SINGLE": Replaced(_ONE_ENGINE),
    "NIM_DYNAMO_WORKER": Replaced(_ONE_ENGINE),
    "NIM_DYNAMO_FRONTEND": Replaced(_ONE_ENGINE),
    "DYN_HTTP_PORT": Replaced("use NIM_SERVER_PORT"),
    "NIM_PEFT_REFRESH_INTERVAL": Replaced("adapters are found at the start; start it again for new ones"),
    "NIM_PEFT_API_TIMEOUT_SECS": Replaced("adapters are read from the folder NIM_PEFT_SOURCE alone"),
    "SGLANG_LOG_LEVEL": Replaced("use NIM_LOG_LEVEL"),
    # The server
    "NIM_NGINX_DIR": Replaced("use NIMCTL_STATE_DIR"),
    "NIM_MIDDLEWARE_CONFIG_PATH": Replaced("use NIM_PASSTHROUGH_ARGS='--middleware CLASS'"),
    "NIM_CAPTURE_ENABLE": Replaced("requests are not recorded"),
    "NIM_CAPTURE_ARGS": Replaced("requests are not recorded"),
    "NIM_OTEL_METRICS_EXPORTER": Replaced("metrics are at /v1/metrics"),
    "NIM_SSL_CERT_PATH": Replaced("use SSL_CERT_FILE for downloads, NIM_SSL_CERTS_PATH for the server"),
    "NIM_SDK_MAX_PARALLEL_DOWNLOAD_REQUESTS": Replaced("downloads choose it by themselves"),
    "NIM_SDK_USE_NATIVE_TLS": Replaced("the host's authorities are given with SSL_CERT_FILE", expected=True),
    "NIM_TELEMETRY_MODE": Replaced("nothing is sent to anybody", expected=True),
    # What an operator sets for every container
    "NIM_GRPC_API_PORT": Replaced("only HTTP is served", expected=True),
    "NIM_TRITON_GRPC_PORT": Replaced("only HTTP is served", expected=True),
    "NIM_TRITON_METRICS_PORT": Replaced("metrics are at /v1/metrics", expected=True),
    "NIM_MPI_ALLOW_RUN_AS_ROOT": Replaced("nothing is started by MPI", expected=True),
    "OUTLINES_CACHE_DIR": Replaced("the engine reads it", expected=True),
    "CLUSTER_START_TIMEOUT": Replaced("NIM_ENGINE_STALL_SECONDS ends a start that stands still", expected=True),
    "CLUSTER_SIZE": Replaced("NIM_NUM_COMPUTE_NODES says it", expected=True),
    "GPUS_PER_NODE": Replaced(_NOT_NEEDED, expected=True),
    "HF_HOME": Replaced("NIM_CACHE_PATH is where weights lie", expected=True),
}

"""Variables that are an engine option under another name, read in one way by the host and by the container.

The names are NVIDIA's: https://docs.nvidia.com/nim/large-language-models/latest/configuration.html (1.x) and
https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html (2.x). The options:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/engine/arg_utils.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nimctl.core.engine_options import Option, options_of
from nimctl.core.variables import OBJECT, SHARE, SWITCH, TEXT, Variable, count, one_of

_SPECULATIVE = "speculative-config"
# No option of the engine: it stands for no drafts, whatever lower layers say.
NO_DRAFTS = f"no-{_SPECULATIVE}"
_RANKS = ("1", "8", "16", "32", "64", "128", "256", "320", "512")
# As many as a draft that nobody knows more about is asked to propose.
_TOKENS = 3
# What the words of a prompt are looked up by, when no draft model is known: the engine's own example.
# https://docs.vllm.ai/en/stable/features/spec_decode/
_NGRAM = {"method": "ngram", "num_speculative_tokens": _TOKENS, "prompt_lookup_max": 4}


def _backend(value: str) -> Mapping[str, str]:
    return {"backend": value}


def _contrary(value: bool) -> bool:
    return not value


BATCHES = (
    Variable(
        "NIM_MAX_NUM_SEQS", "", count(1), None, "Requests served at once; default: the engine's.",
        option="max-num-seqs", aliases=("NIM_MAX_BATCH_SIZE",),
    ),
    Variable(
        "NIM_SCHEDULER_POLICY", "", one_of("fcfs", "priority"), None, "Who comes first.", option="scheduling-policy"
    ),
    Variable(
        "NIM_DISABLE_OVERLAP_SCHEDULING", "", SWITCH, None, "1: no batch is scheduled while another runs.",
        option="async-scheduling", given=_contrary,
    ),
    Variable(
        "NIM_KV_CACHE_PERCENT", "", SHARE, None, "The share of each GPU's memory that the engine may use.",
        option="gpu-memory-utilization", aliases=("NIM_KVCACHE_PERCENT", "NIM_GPU_MEM_FRACTION"),
    ),
    Variable(
        "NIM_ENABLE_KV_CACHE_REUSE", "", SWITCH, None, "Prompts that begin alike share their context.",
        option="enable-prefix-caching",
    ),
    Variable(
        "NIM_DISABLE_CUDA_GRAPH", "", SWITCH, None, "1: neither graphs nor compilation; starts sooner, answers slower.",
        option="enforce-eager",
    ),
    Variable(
        "NIM_PER_REQ_METRICS_ENABLE", "", SWITCH, None, "Timings in each answer.", option="enable-per-request-metrics"
    ),
)  # fmt: skip
PROMPTS = (
    Variable(
        "NIM_ENABLE_AUTO_TOOL_CHOICE", "", SWITCH, None, "The model may decide to call a tool.",
        option="enable-auto-tool-choice",
    ),
    Variable(
        "NIM_TOOL_CALL_PARSER", "", TEXT, None, "How its calls are read, such as `kimi_k2` or `hermes`.",
        option="tool-call-parser",
    ),
    Variable(
        "NIM_CHAT_TEMPLATE", "", TEXT, None, "Another chat template: its path, or itself.", option="chat-template"
    ),
    Variable("NIM_TOKENIZER_MODE", "", TEXT, None, "Such as `auto` or `mistral`.", option="tokenizer-mode"),
    Variable(
        "NIM_GUIDED_DECODING_BACKEND", "", one_of("auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"),
        None, "What keeps answers to a schema.", option="structured-outputs-config", given=_backend,
    ),
    Variable(
        "NIM_TRUST_CUSTOM_CODE", "", SWITCH, None, "1: code that comes with the weights is run.",
        option="trust-remote-code", aliases=("NIM_FORCE_TRUST_REMOTE_CODE",),
    ),
)  # fmt: skip
DRAFTS = (
    Variable(
        "NIM_SPECDEC_ENABLE", "", SWITCH, None,
        "1: drafts, the recipe's way or by looking words up in the prompt; 0: none, whatever else asks for them.",
        option=_SPECULATIVE,
    ),
    Variable("NIM_SPECDEC_ARGS", "", OBJECT, None, "The engine's own settings of drafts.", option=_SPECULATIVE),
    Variable(
        "NIM_DRAFT_MODEL_PATH", "", TEXT, None, "The draft model: a folder or a source URI.", option=_SPECULATIVE
    ),
    Variable(
        "NIM_NUM_SPECULATIVE_TOKENS", "", count(1, 999), None, "Tokens that a draft proposes at once.",
        option=_SPECULATIVE,
    ),
)  # fmt: skip
ADAPTERS = (
    Variable(
        "NIM_MAX_GPU_LORAS", "", count(1, 1024), None, "LoRA adapters in one batch.", option="max-loras",
    ),
    Variable(
        "NIM_MAX_CPU_LORAS", "", count(1, 65536), None, "LoRA adapters kept in the host's memory.",
        option="max-cpu-loras",
    ),
    Variable(
        "NIM_MAX_LORA_RANK", "", one_of(*_RANKS), None, "Largest rank of an adapter; default: that of those found.",
        option="max-lora-rank",
    ),
)  # fmt: skip
ENGINE_VARIABLES = (*BATCHES, *PROMPTS, *DRAFTS, *ADAPTERS)
PEFT_SOURCE = "NIM_PEFT_SOURCE"


def values_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of those that are set, by name. Raises `config-invalid`."""
    found: dict[str, Any] = {}
    for variable in ENGINE_VARIABLES:
        if name := variable.set_as(environ):
            found[variable.name] = variable.value(environ[name], name)
    if environ.get(PEFT_SOURCE):
        found[PEFT_SOURCE] = environ[PEFT_SOURCE]
    return found


def asked_of_engine(
    values: Mapping[str, Any], drafts: Sequence[Mapping[str, Any]] = ()
) -> tuple[tuple[str, Option], ...]:
    """The options that `values_of` asks for, each with its variable; `drafts` are the recipe's ways, best first."""
    found = [
        (v.name, option)
        for v in ENGINE_VARIABLES
        if v.name in values and v.option is not None and v.option != _SPECULATIVE
        for option in options_of({v.option: v.given(values[v.name]) if v.given else values[v.name]})
    ]
    if PEFT_SOURCE in values:
        found += [(PEFT_SOURCE, option) for option in options_of({"enable-lora": True})]
    about = [v.name for v in DRAFTS if v.name in values]
    if about and not values.get("NIM_SPECDEC_ENABLE", True):
        return (*found, (about[0], Option(NO_DRAFTS, (f"--{NO_DRAFTS}",))))
    if about:
        found += [(about[-1], option) for option in options_of({_SPECULATIVE: _drafting(values, drafts)})]
    return tuple(found)


def _drafting(values: Mapping[str, Any], drafts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = dict(values.get("NIM_SPECDEC_ARGS", {}))
    if model := values.get("NIM_DRAFT_MODEL_PATH"):
        config["model"] = model
    if tokens := values.get("NIM_NUM_SPECULATIVE_TOKENS"):
        config["num_speculative_tokens"] = tokens
    if not {"model", "method"} & set(config):  # nobody says how
        config = {**(drafts[0] if drafts else _NGRAM), **config}
    return {"num_speculative_tokens": _TOKENS, **config}

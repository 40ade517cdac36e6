"""`runtime_config.json` beside the weights: engine options that come with a model.

As NIM has it, below everything that is asked of the container and above the profile:
https://docs.nvidia.com/nim/large-language-models/2.1.4/reference/advanced-configuration.html
Weights come from strangers. So only options that neither run code nor open files or addresses are theirs to give; the
others have to be repeated by whoever starts the container.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nimctl.core.engine_options import OBJECTS, Option, Value, merge, object_of, options_of, parse_options
from nimctl.core.errors import NimctlError

NAME = "runtime_config.json"
_RESERVED = "NIM_PASSTHROUGH_ARGS"
_MOST = 2**20  # bytes
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/engine/arg_utils.py
_ALLOWED = frozenset(
    {
        "all2all-backend", "async-scheduling", "attention-backend", "block-size", "chat-template-content-format",
        "compilation-config", "cpu-offload-gb", "cudagraph-capture-sizes", "data-parallel-size",
        "decode-context-parallel-size", "default-chat-template-kwargs", "disable-cascade-attn",
        "disable-sliding-window", "dtype", "enable-auto-tool-choice", "enable-chunked-prefill", "enable-dbo",
        "enable-eplb", "enable-expert-parallel", "enable-lora", "enable-prefix-caching", "enforce-eager",
        "expert-placement-strategy",
        "gpu-memory-utilization", "interleave-mm-strings", "kv-cache-dtype", "kv-cache-memory-bytes",
        "kv-offloading-size", "language-model-only", "limit-mm-per-prompt", "linear-backend", "logprobs-mode",
        "long-prefill-token-threshold", "mamba-backend", "mamba-block-size", "mamba-cache-dtype", "mamba-cache-mode",
        "mamba-ssm-cache-dtype", "max-cudagraph-capture-size", "max-logprobs", "max-lora-rank", "max-loras",
        "max-model-len", "max-num-batched-tokens", "max-num-seqs", "media-io-kwargs", "mm-encoder-attn-backend",
        "mm-encoder-tp-mode", "mm-processor-cache-gb", "mm-processor-kwargs", "moe-backend", "optimization-level",
        "override-generation-config", "performance-mode", "pipeline-parallel-size", "prefix-caching-hash-algo",
        "quantization", "reasoning-parser", "scheduling-policy", "seed", "skip-mm-profiling", "speculative-config",
        "stream-interval", "structured-outputs-config", "tensor-parallel-size", "tokenizer-mode", "tool-call-parser",
        "video-pruning-rate",
    }
)  # fmt: skip
# Of objects that can also name code, folders or another model, only these keys.
_KEYS = {
    "compilation-config": {
        "mode", "cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size", "compile_sizes",
        "pass_config", "use_inductor_graph_partition",
    },
    "speculative-config": {
        "method", "num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min", "rejection_sample_method",
    },
    "structured-outputs-config": {"backend", "disable_any_whitespace", "enable_in_reasoning"},
}  # fmt: skip


def read(folder: Path) -> tuple[Option, ...]:
    """The options that the weights in `folder` bring; none where they bring no such file. Raises `config-invalid`."""
    path = folder / NAME
    try:
        if path.stat().st_size > _MOST:
            raise _malformed(path, f"it is larger than {_MOST:,} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise _malformed(path, str(error)) from error
    if not isinstance(document, dict):
        raise _malformed(path, "it is no JSON object")
    try:
        return options(document, path)
    except RecursionError as error:
        raise _malformed(path, "its objects are nested too deep") from error


def options(document: dict[str, Any], path: Path) -> tuple[Option, ...]:
    """The options that `document` at `path` holds by name; those in its NIM_PASSTHROUGH_ARGS give way to the others."""
    given = document.get(_RESERVED)
    try:
        words = shlex.split(given) if isinstance(given, str) else _words(given)
        passed = parse_options(words)
    except (ValueError, NimctlError) as error:
        why = error.cause if isinstance(error, NimctlError) else str(error)
        raise _malformed(path, f"its {_RESERVED} cannot be read: {why}") from error
    found: dict[str, Value] = {}
    for key, value in document.items():
        name = key.replace("_", "-")
        if key == _RESERVED or value is None:
            continue
        if not isinstance(value, (str, int, float, bool, dict, list)) or not name or name.startswith("-"):
            raise _malformed(path, f"{key!r} is no option of the engine")
        if isinstance(value, str):
            _word(path, key, value)
        if isinstance(value, dict) and name not in OBJECTS:
            raise _malformed(path, f"{key} is an object, and the engine's --{name} takes none")
        found[name] = [_word(path, key, item) for item in value] if isinstance(value, list) else value
    return merge(passed, options_of(found))


def _words(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, list) and all(isinstance(word, str) for word in given):
        return tuple(given)
    raise ValueError("a text is expected")


def _word(path: Path, key: str, item: Any) -> str:
    # A word with a dash would be an option of its own to the engine, past what is allowed.
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        return str(item)
    if isinstance(item, str) and not item.startswith("-"):
        return item
    raise _malformed(path, f"texts without a dash before them, or numbers, are expected for {key}")


def not_theirs(option: Option) -> str | None:
    """What of `option` weights may not decide: the option, or a key of its object; None where it is theirs to give."""
    name = option.name.removeprefix("no-")
    if name not in _ALLOWED:
        return f"--{name}"
    keys = _KEYS.get(name)
    if keys is None:
        return None
    document = object_of(option)
    if document is None:
        return f"--{name}"
    return next((f"--{name}.{key}" for key in document if key not in keys), None)


def require_theirs(options: Sequence[Option], repeated: Sequence[str]) -> None:
    """Refuse what is not theirs to give, except the options in `repeated`. Raises `config-invalid`."""
    for option in options:
        name = option.name.removeprefix("no-")
        if name not in repeated and (what := not_theirs(option)) is not None:
            raise NimctlError(
                "config-invalid",
                f"the weights ask for {what} in their {NAME}",
                cause="options that can run code or open files and addresses are not decided by weights",
                fix=f"If you trust it, give --{name} yourself, on the command line or in NIM_PASSTHROUGH_ARGS.",
            )


def _malformed(path: Path, cause: str) -> NimctlError:
    return NimctlError(
        "config-invalid",
        f"{NAME} beside the weights cannot be read",
        cause=cause,
        fix=f"Correct or remove {path}.",
    )

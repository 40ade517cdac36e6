"""The table of rotary positions, which every rank holds beside the weights. Pure.

One a model, whatever the number of layers, with a row for each position: of a 128k context 32 MiB, so it is what
separates the weights from the "Model loading took" of the engine's log.
https://github.com/vllm-project/vllm/tree/v0.32.0/vllm/model_executor/layers/rotary_embedding
"""

from collections.abc import Mapping
from typing import Any

from nimctl.core.memory.settings import Settings, architecture_of, head_size, language

_FLOAT32, _HALF = 4, 2
# models/gpt_oss.py asks for its table in float32
_PRECISE = frozenset({"GptOssForCausalLM"})


def rotary_bytes(config: Mapping[str, Any], *, gpu: bool = True) -> int:
    """Bytes of the table of the model that `config` (config.json) describes; on a CPU compressed attention keeps less.

    Held for plain, Llama 3 and YaRN positions; others are counted as plain. Raises UnknownArchitecture.
    """
    text = language(config)
    positions = text.whole("max_position_embeddings", default=0)
    scaling = text.inner("rope_parameters") or text.inner("rope_scaling") or Settings({})
    latent = text.whole("qk_rope_head_dim", default=0)
    precise = architecture_of(config) in _PRECISE
    if _kind(scaling) == "yarn":
        positions = int(scaling.whole("original_max_position_embeddings") * _number(scaling, "factor", 1.0))
        # deepseek_scaling_rope.py: FlashInfer's kernel, which is there on a GPU, takes float32
        precise = precise or (bool(latent) and gpu)
    share = _number(scaling, "partial_rotary_factor", _number(text, "partial_rotary_factor", 1.0))
    return positions * (latent or int(head_size(text) * share)) * (_FLOAT32 if precise else _HALF)


def _kind(scaling: Settings) -> str | None:
    return scaling.text("rope_type") or scaling.text("type")


def _number(settings: Settings, name: str, default: float) -> float:
    value = settings.found.get(name)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6
    return float(value) if usable and value is not None else default

"""The tensors that a configuration implies, named as the published checkpoints name them. Pure.

For planning before a header is read. The sums of the published models are held in tests/data by the total that each
index file states. What is not known here raises `UnknownArchitecture`; nothing is guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from nimctl.core.memory import vision
from nimctl.core.memory.listing import Listing
from nimctl.core.memory.quantisation import Scheme, plain_type, scheme_of
from nimctl.core.memory.settings import EXPERTS, Settings, UnknownArchitecture, architecture_of, head_size, language
from nimctl.core.memory.tensors import Inventory

Builder = Callable[[Listing, Settings], None]


def inventory_of(config: Mapping[str, Any], exported: Mapping[str, Any] | None = None) -> Inventory:
    """The tensors of the model that `config` (config.json) describes; `exported` is `hf_quant_config.json`, if any.

    Tied embeddings count once, though some writers store them twice, and buffers that no engine loads are left out
    (together below 0.002 % of any model that was compared). Raises UnknownArchitecture.
    """
    name, text = architecture_of(config), language(config)
    if name not in _BUILDERS:
        raise UnknownArchitecture(
            f"the tensors of the architecture {name} are not known; those of {', '.join(sorted(_BUILDERS))} are"
        )
    scheme = scheme_of(config, text, exported)
    if (name in _PACKED_BY_FOUR) != (scheme.kind == "mxfp4"):
        raise UnknownArchitecture(f"the tensors of {name} in the format {scheme.kind!r} are not known")
    prefix = "language_model." if name in _WITH_VISION else ""
    if text.flag("tie_word_embeddings") and name in _WITH_VISION:
        raise UnknownArchitecture(f"{name} with tied embeddings is not known")
    if name in _BF16_SCALES and scheme.kind == "fp8-block":
        scheme = Scheme(scheme.plain, scheme.kind, scheme.group, scheme.ignored, "BF16")
    listing = Listing(scheme, prefix)
    _BUILDERS[name](listing, text)
    if name in _WITH_VISION:
        tower = Settings(config).inner("vision_config")
        if tower is None:
            raise UnknownArchitecture("config.json has no vision_config")
        plain = plain_type(Settings(config), text)
        vision.kimi(Listing(Scheme(plain), "", listing.found), tower, text.some("hidden_size"))
    return listing.inventory()


def _frame(listing: Listing, text: Settings) -> int:
    """Embedding, norms around each layer, final norm and output matrix; returns the number of layers."""
    hidden, vocabulary, layers = text.some("hidden_size"), text.some("vocab_size"), text.some("num_hidden_layers")
    if layers > 10_000:
        raise UnknownArchitecture(f"{text.where}: {layers} layers are beyond reason")
    listing.plain("model.embed_tokens.weight", vocabulary, hidden)
    for layer in range(layers):
        _around(listing, layer, hidden)
    listing.plain("model.norm.weight", hidden)
    if not text.flag("tie_word_embeddings"):
        listing.plain("lm_head.weight", vocabulary, hidden)
    return layers


def _around(listing: Listing, layer: int, hidden: int) -> None:
    listing.plain("model.layers.{layer}.input_layernorm.weight", hidden, layer=layer)
    listing.plain("model.layers.{layer}.post_attention_layernorm.weight", hidden, layer=layer)


def _grouped(listing: Listing, text: Settings, layer: int, *, bias: bool, out_bias: bool, norms: bool) -> None:
    """Attention whose queries share keys and values in groups."""
    hidden, heads, size = text.some("hidden_size"), text.some("num_attention_heads"), head_size(text)
    shared = text.whole("num_key_value_heads", default=heads)
    inside = "model.layers.{layer}.self_attn"
    listing.matrix(f"{inside}.q_proj", heads * size, hidden, layer=layer, bias=bias)
    listing.matrix(f"{inside}.k_proj", shared * size, hidden, layer=layer, bias=bias)
    listing.matrix(f"{inside}.v_proj", shared * size, hidden, layer=layer, bias=bias)
    listing.matrix(f"{inside}.o_proj", hidden, heads * size, layer=layer, bias=out_bias)
    if norms:
        listing.plain(f"{inside}.q_norm.weight", size, layer=layer)
        listing.plain(f"{inside}.k_norm.weight", size, layer=layer)


def _latent(listing: Listing, text: Settings, layer: int) -> None:
    """Attention whose keys and values are kept compressed (MLA)."""
    hidden, heads = text.some("hidden_size"), text.some("num_attention_heads")
    query, latent, rope = text.some("q_lora_rank"), text.some("kv_lora_rank"), text.some("qk_rope_head_dim")
    nope, value = text.some("qk_nope_head_dim"), text.some("v_head_dim")
    bias, inside = text.flag("attention_bias"), "model.layers.{layer}.self_attn"
    listing.matrix(f"{inside}.q_a_proj", query, hidden, layer=layer, bias=bias)
    listing.plain(f"{inside}.q_a_layernorm.weight", query, layer=layer)
    listing.matrix(f"{inside}.q_b_proj", heads * (nope + rope), query, layer=layer)
    listing.matrix(f"{inside}.kv_a_proj_with_mqa", latent + rope, hidden, layer=layer, bias=bias)
    listing.plain(f"{inside}.kv_a_layernorm.weight", latent, layer=layer)
    listing.matrix(f"{inside}.kv_b_proj", heads * (nope + value), latent, layer=layer)
    listing.matrix(f"{inside}.o_proj", hidden, heads * value, layer=layer, bias=bias)


def _gated(listing: Listing, inside: str, hidden: int, width: int, *, layer: int, bias: bool = False) -> None:
    """A feed-forward network with a gate."""
    listing.matrix(f"{inside}.gate_proj", width, hidden, layer=layer, bias=bias)
    listing.matrix(f"{inside}.up_proj", width, hidden, layer=layer, bias=bias)
    listing.matrix(f"{inside}.down_proj", hidden, width, layer=layer, bias=bias)


def _experts(listing: Listing, text: Settings, layer: int, *, correction: bool) -> None:
    """Router, routed experts and, where there are any, shared ones."""
    hidden, width, count = text.some("hidden_size"), text.some("moe_intermediate_size"), text.some(*EXPERTS)
    if count > 100_000:
        raise UnknownArchitecture(f"{text.where}: {count} experts are beyond reason")
    listing.plain("model.layers.{layer}.mlp.gate.weight", count, hidden, layer=layer)
    if correction:
        listing.plain("model.layers.{layer}.mlp.gate.e_score_correction_bias", count, layer=layer, dtype="F32")
    if shared := text.whole("n_shared_experts", default=0):
        _gated(listing, "model.layers.{layer}.mlp.shared_experts", hidden, shared * width, layer=layer)
    inside = "model.layers.{layer}.mlp.experts.{expert}"
    for projection in ("gate_proj", "up_proj"):
        listing.matrix(f"{inside}.{projection}", width, hidden, layer=layer, experts=count)
    listing.matrix(f"{inside}.down_proj", hidden, width, layer=layer, experts=count)


def _predictor(listing: Listing, text: Settings, layer: int) -> None:
    """What a layer that predicts several tokens has beside those of an ordinary one; its tables are copies."""
    hidden, vocabulary, inside = text.some("hidden_size"), text.some("vocab_size"), "model.layers.{layer}"
    listing.plain(f"{inside}.embed_tokens.weight", vocabulary, hidden, layer=layer)
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        listing.plain(f"{inside}.{norm}.weight", hidden, layer=layer)
    listing.plain(f"{inside}.eh_proj.weight", hidden, 2 * hidden, layer=layer)
    listing.plain(f"{inside}.shared_head.head.weight", vocabulary, hidden, layer=layer)
    _around(listing, layer, hidden)


def _deepseek(listing: Listing, text: Settings) -> None:
    """DeepSeek-V3, R1 and Kimi-K2: https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/README_WEIGHTS.md"""
    layers = _frame(listing, text)
    dense, correction = text.whole("first_k_dense_replace"), text.text("topk_method") == "noaux_tc"
    if text.whole("moe_layer_freq", default=1) != 1:
        raise UnknownArchitecture(f"{text.where}: experts in only some of the later layers are not known")
    extra = text.whole("num_nextn_predict_layers", default=0)
    for layer in range(layers + extra):
        _latent(listing, text, layer)
        if layer < dense:
            inside = "model.layers.{layer}.mlp"
            _gated(listing, inside, text.some("hidden_size"), text.some("intermediate_size"), layer=layer)
        else:
            _experts(listing, text, layer, correction=correction)
        if layer >= layers:
            _predictor(listing, text, layer)


def _glm(listing: Listing, text: Settings) -> None:
    """GLM-4.5 and 4.6: grouped attention with biases, DeepSeek's experts."""
    layers = _frame(listing, text)
    extra = text.whole("num_nextn_predict_layers", default=0)
    for layer in range(layers + extra):
        norms = text.flag("use_qk_norm")
        _grouped(listing, text, layer, bias=text.flag("attention_bias"), out_bias=False, norms=norms)
        if layer < text.whole("first_k_dense_replace"):
            inside = "model.layers.{layer}.mlp"
            _gated(listing, inside, text.some("hidden_size"), text.some("intermediate_size"), layer=layer)
        else:
            _experts(listing, text, layer, correction=True)
        if layer >= layers:
            _predictor(listing, text, layer)


def _llama(listing: Listing, text: Settings) -> None:
    """Llama and Mistral."""
    bias, wide = text.flag("attention_bias"), text.flag("mlp_bias")
    _dense(listing, text, bias=bias, out_bias=bias, norms=False, wide_bias=wide)


def _qwen2(listing: Listing, text: Settings) -> None:
    """Biases on queries, keys and values, whatever the configuration says."""
    _dense(listing, text, bias=True, out_bias=False, norms=False)


def _qwen3(listing: Listing, text: Settings) -> None:
    """Norms of queries and keys instead of biases."""
    bias = text.flag("attention_bias")
    _dense(listing, text, bias=bias, out_bias=bias, norms=True)


def _dense(
    listing: Listing, text: Settings, *, bias: bool, out_bias: bool, norms: bool, wide_bias: bool = False
) -> None:
    hidden, width = text.some("hidden_size"), text.some("intermediate_size")
    for layer in range(_frame(listing, text)):
        _grouped(listing, text, layer, bias=bias, out_bias=out_bias, norms=norms)
        _gated(listing, "model.layers.{layer}.mlp", hidden, width, layer=layer, bias=wide_bias)


def _qwen3_moe(listing: Listing, text: Settings) -> None:
    """Experts in every `decoder_sparse_step`-th layer but those that are named as plain."""
    named, step = text.found.get("mlp_only_layers") or [], text.some("decoder_sparse_step")
    bias = text.flag("attention_bias")
    for layer in range(_frame(listing, text)):
        _grouped(listing, text, layer, bias=bias, out_bias=bias, norms=True)
        if layer in named or (layer + 1) % step:
            inside = "model.layers.{layer}.mlp"
            _gated(listing, inside, text.some("hidden_size"), text.some("intermediate_size"), layer=layer)
        else:
            _experts(listing, text, layer, correction=False)


def _gpt_oss(listing: Listing, text: Settings) -> None:
    """Experts in one tensor a layer, four bits a value with a scale for each 32: https://github.com/openai/gpt-oss"""
    hidden, width, count = text.some("hidden_size"), text.some("intermediate_size"), text.some(*EXPERTS)
    plain = Listing(Scheme(listing.scheme.plain), listing.prefix, listing.found)
    inside = "model.layers.{layer}.mlp"
    for layer in range(_frame(plain, text)):
        bias = text.flag("attention_bias")
        _grouped(plain, text, layer, bias=bias, out_bias=bias, norms=False)
        plain.plain("model.layers.{layer}.self_attn.sinks", text.some("num_attention_heads"), layer=layer)
        plain.matrix(f"{inside}.router", count, hidden, layer=layer, bias=True)
        for name, rows, columns in (("gate_up_proj", 2 * width, hidden), ("down_proj", hidden, width)):
            whole = f"{inside}.experts.{name}"
            plain.plain(f"{whole}_blocks", count, rows, columns // 32, 16, layer=layer, dtype="U8")
            plain.plain(f"{whole}_scales", count, rows, columns // 32, layer=layer, dtype="U8")
            plain.plain(f"{whole}_bias", count, rows, layer=layer)


_WITH_VISION = frozenset({"KimiK25ForConditionalGeneration"})
_PACKED_BY_FOUR = frozenset({"GptOssForCausalLM"})
# https://huggingface.co/Qwen/Qwen3-32B-FP8: DeepSeek's layout with scales in the model's own type
_BF16_SCALES = frozenset({"Qwen3ForCausalLM", "Qwen3MoeForCausalLM"})
_BUILDERS: Mapping[str, Builder] = {
    "DeepseekV3ForCausalLM": _deepseek,
    "KimiK25ForConditionalGeneration": _deepseek,
    "Glm4MoeForCausalLM": _glm,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "GptOssForCausalLM": _gpt_oss,
}

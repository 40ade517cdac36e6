"""The configuration documents: what vLLM 0.32 needs to take the checkpoint for a Kimi-K2.5, and no code to trust."""

import json

from nimctl.core.demo.config import generation_config, model_config, preprocessor_config
from nimctl.core.demo.tokenizer import special_ids, tokenizer_config, vocab_size
from nimctl.core.demo.weights import tensors

CONFIG = model_config()


def test_it_is_a_kimi_k25_for_vllm() -> None:
    assert CONFIG["architectures"] == ["KimiK25ForConditionalGeneration"]
    assert CONFIG["model_type"] == "kimi_k25"
    assert CONFIG["use_unified_vision_chunk"] is True
    assert CONFIG["video_placeholder"] in special_ids()
    assert (CONFIG["text_config"]["topk_method"], CONFIG["text_config"]["scoring_func"]) == ("noaux_tc", "sigmoid")


def test_no_document_brings_code() -> None:
    documents = [CONFIG, tokenizer_config(), generation_config(), preprocessor_config()]
    assert "auto_map" not in json.dumps(documents)


def test_token_ids_agree_with_the_tokenizer() -> None:
    ids = special_ids()
    assert CONFIG["image_token_id"] == CONFIG["media_placeholder_token_id"] == ids["<|media_pad|>"]
    assert (CONFIG["vision_start_token_id"], CONFIG["vision_end_token_id"]) == (
        ids["<|media_begin|>"],
        ids["<|media_end|>"],
    )
    assert generation_config()["eos_token_id"] == ids["<|im_end|>"]
    assert CONFIG["text_config"]["vocab_size"] == vocab_size()


def test_dimensions_agree_with_the_tensors() -> None:
    shapes = {tensor.name: tensor.shape for tensor in tensors()}
    text, vision = CONFIG["text_config"], CONFIG["vision_config"]
    layers = {name.split(".")[3] for name in shapes if name.startswith("language_model.model.layers.")}
    assert len(layers) == text["num_hidden_layers"]
    assert shapes["language_model.model.embed_tokens.weight"] == (text["vocab_size"], text["hidden_size"])
    last = f"language_model.model.layers.{text['num_hidden_layers'] - 1}"
    assert shapes[f"{last}.mlp.gate.weight"] == (text["n_routed_experts"], text["hidden_size"])
    assert shapes[f"{last}.self_attn.q_b_proj.weight"] == (
        text["num_attention_heads"] * (text["qk_nope_head_dim"] + text["qk_rope_head_dim"]),
        text["q_lora_rank"],
    )
    patch = vision["patch_size"]
    assert shapes["vision_tower.patch_embed.proj.weight"] == (vision["hidden_size"], 3, patch, patch)
    assert shapes["mm_projector.pre_norm.weight"] == (CONFIG["projection_hidden_size"],)


def test_rope_covers_the_context() -> None:
    rope = CONFIG["text_config"]["rope_scaling"]
    context = CONFIG["text_config"]["max_position_embeddings"]
    assert rope["factor"] * rope["original_max_position_embeddings"] == context
    assert tokenizer_config()["model_max_length"] == context


def test_four_images_fit_in_a_small_context() -> None:
    media = preprocessor_config()["media_proc_cfg"]
    tokens = media["in_patch_limit"] // media["merge_kernel_size"] ** 2
    assert 4 * tokens <= 2048

"""The demo model's dimensions and the JSON documents that state them, with the keys vLLM 0.32 reads.

Sizes that GPU kernels are written for are those of Kimi-K2.5 itself (64 heads, latent 512, rope 64, nope and value
128); only the depth, the widths and the number of experts are small. All that tensor parallelism cuts divides by 8.
"""

from dataclasses import dataclass
from typing import Any

from nimctl.core.demo.tokenizer import special_ids, token_id, vocab_size


@dataclass(frozen=True)
class TextDimensions:
    """The language model: one dense layer and two of experts, so both stages of PP 2 hold experts (vLLM cuts 2+1)."""

    layers: int = 3
    dense_layers: int = 1
    hidden: int = 256
    dense_intermediate: int = 512
    heads: int = 64
    q_lora: int = 64
    kv_lora: int = 512
    rope: int = 64
    nope: int = 128
    value: int = 128
    experts: int = 8
    experts_per_token: int = 2
    shared_experts: int = 1
    moe_intermediate: int = 512
    context: int = 32768


@dataclass(frozen=True)
class VisionDimensions:
    """The vision tower; a head has 64 channels, which flash attention takes and 2-D rope can split in four."""

    layers: int = 2
    hidden: int = 512
    intermediate: int = 1024
    heads: int = 8
    patch: int = 14
    grid: int = 16
    frames: int = 4
    merge: int = 2


TEXT = TextDimensions()
VISION = VisionDimensions()


def _text_config() -> dict[str, Any]:
    return {
        "model_type": "kimi_k2",
        "architectures": ["DeepseekV3ForCausalLM"],
        "dtype": "bfloat16",
        "vocab_size": vocab_size(),
        "bos_token_id": token_id("[BOS]"),
        "eos_token_id": token_id("[EOS]"),
        "pad_token_id": token_id("[PAD]"),
        "hidden_size": TEXT.hidden,
        "intermediate_size": TEXT.dense_intermediate,
        "num_hidden_layers": TEXT.layers,
        "num_attention_heads": TEXT.heads,
        "num_key_value_heads": TEXT.heads,
        "q_lora_rank": TEXT.q_lora,
        "kv_lora_rank": TEXT.kv_lora,
        "qk_rope_head_dim": TEXT.rope,
        "qk_nope_head_dim": TEXT.nope,
        "v_head_dim": TEXT.value,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "n_routed_experts": TEXT.experts,
        "num_experts_per_tok": TEXT.experts_per_token,
        "n_shared_experts": TEXT.shared_experts,
        "moe_intermediate_size": TEXT.moe_intermediate,
        "first_k_dense_replace": TEXT.dense_layers,
        "moe_layer_freq": 1,
        # A router with a correction bias: without these two vLLM has no parameter for the bias in the file.
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.827,
        "n_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-05,
        "max_position_embeddings": TEXT.context,
        "rope_theta": 50000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": TEXT.context // 8,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def _vision_config() -> dict[str, Any]:
    return {
        "model_type": "kimi_k25_vision",
        "patch_size": VISION.patch,
        "pos_emb_height": VISION.grid,
        "pos_emb_width": VISION.grid,
        "pos_emb_time": VISION.frames,
        "num_attention_heads": VISION.heads,
        "num_hidden_layers": VISION.layers,
        "hidden_size": VISION.hidden,
        "intermediate_size": VISION.intermediate,
        "hidden_act": "gelu_pytorch_tanh",
        "merge_kernel_size": [VISION.merge, VISION.merge],
    }


def model_config() -> dict[str, Any]:
    """The document `config.json`. It names no code of its own, so no server has to trust any."""
    media = token_id("<|media_pad|>")
    return {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "dtype": "bfloat16",
        "bos_token_id": token_id("[BOS]"),
        "eos_token_id": token_id("[EOS]"),
        "pad_token_id": token_id("[PAD]"),
        "ignore_index": -100,
        "media_placeholder_token_id": media,  # the published name
        "image_token_id": media,  # the name that transformers 5 reads
        "video_token_id": token_id("<|kimi_k25_video_placeholder|>"),
        "vision_start_token_id": token_id("<|media_begin|>"),
        "vision_end_token_id": token_id("<|media_end|>"),
        "use_unified_vision_chunk": True,  # vLLM refuses images without it
        "video_placeholder": "<|kimi_k25_video_placeholder|>",
        "projection_hidden_size": VISION.hidden,
        "projection_layer_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "text_config": _text_config(),
        "vision_config": _vision_config(),
    }


def generation_config() -> dict[str, Any]:
    """The document `generation_config.json`: a generation ends with the turn."""
    return {"eos_token_id": special_ids()["<|im_end|>"], "max_length": TEXT.context}


def preprocessor_config() -> dict[str, Any]:
    """The document `preprocessor_config.json`. At most 1024 patches, so 256 tokens, come from one image."""
    return {
        "media_proc_cfg": {
            "in_patch_limit": 1024,
            "patch_size": VISION.patch,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "merge_kernel_size": VISION.merge,
            "fixed_output_tokens": None,
            "patch_limit_on_one_side": 64,
            "in_patch_limit_each_frame": 256,
            "in_patch_limit_video": None,
            "sample_fps": 2.0,
            "max_num_frames_each_video": None,
            "temporal_merge_kernel_size": VISION.frames,
            "timestamp_mode": "hh:mm:ss.fff",
        }
    }

"""Runs vLLM's own cache planner: JSON of cases on stdin, JSON of the answers as the last line of stdout.

It needs no GPU and no model. The configuration is a stand-in with the few fields that the planner reads.
"""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from vllm.utils.torch_utils import nvfp4_kv_cache_full_dim
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend
from vllm.v1.core import kv_cache_utils as planner
from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    SparseCacheRole,
    get_kv_quant_mode,
)
from vllm.v1.kv_cache_layout import KVCacheLayout

DTYPES = {"fp8": torch.float8_e4m3fn, "fp8_ds_mla": torch.uint8, "nvfp4_ds_mla": torch.uint8}


def with_scales(spec: FullAttentionSpec, dtype: str) -> FullAttentionSpec:
    """What the attention backends make of a cache that keeps its scales inside."""
    if dtype.endswith("per_token_head"):
        mode = get_kv_quant_mode(dtype)
        return TritonAttentionBackend.customize_spec(replace(spec, dtype=torch.int8, kv_quant_mode=mode))
    if dtype == "nvfp4":
        sides = nvfp4_kv_cache_full_dim(spec.head_size), nvfp4_kv_cache_full_dim(spec.head_size_v)
        return replace(spec, state_content_bytes=sum(sides))
    return spec


def spec_of(told: dict[str, Any], block: int) -> KVCacheSpec:
    kind, dtype = told["kind"], told.get("dtype", "uint8")
    torch_dtype = DTYPES.get(dtype) or getattr(torch, dtype, torch.uint8)
    if kind == "State":
        shapes = tuple(tuple(shape) for shape in told["shapes"])
        dtypes = tuple(getattr(torch, name) for name in told["dtypes"])
        return MambaSpec(
            block_size=block,
            shapes=shapes,
            dtypes=dtypes,
            mamba_cache_mode="align",
            num_speculative_blocks=told["speculative"],
        )
    if kind in ("Latent", "Indexer"):
        packed = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}.get(dtype)
        return MLAAttentionSpec(
            block_size=block,
            num_kv_heads=1,
            max_tp_shards=1,
            head_size=told.get("size", 132),
            dtype=torch_dtype,
            cache_dtype_str=dtype,
            state_content_bytes=packed,
            cache_role=SparseCacheRole.INDEXER if kind == "Indexer" else SparseCacheRole.SPARSE,
        )
    shared: dict[str, Any] = {
        "block_size": block,
        "num_kv_heads": told["kv_heads"],
        "head_size": told["head_size_k"],
        "head_size_v": told["head_size_v"],
        "dtype": torch_dtype,
    }
    if kind == "SlidingWindow":
        return SlidingWindowSpec(sliding_window=told["window"], **shared)
    if kind == "ChunkedLocal":
        return ChunkedLocalAttentionSpec(attention_chunk_size=told["chunk"], **shared)
    return with_scales(FullAttentionSpec(**shared), dtype)


def config_of(case: dict[str, Any], max_len: int, original: int) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=max_len, original_max_model_len=original),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=None,
            get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBNHC,
            prefix_cache_retention_interval=0,
            mamba_cache_mode="align" if case["aligned_states"] else "none",
        ),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=case["decode_context"],
            tensor_parallel_size=case["tensor"],
            pipeline_parallel_size=len(case["available"]),
        ),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=not case["hybrid"]),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=case["in_flight"],
        device_config=SimpleNamespace(device_type="cuda"),
    )


def plan(case: dict[str, Any]) -> dict[str, Any]:
    stages = [
        {
            f"{layer}.{place}": spec_of(told, case["block"])
            for layer in range(*stage)
            for place, told in enumerate(case["layers"][layer])
        }
        for stage in case["stages"]
    ]
    # Asked for a context as long as fits (-1), the planner finds it; it is asked again for the figures at that length.
    config = config_of(case, case["max_len"], -1)
    try:
        configs = planner.get_kv_cache_configs(config, [dict(stage) for stage in stages], list(case["available"]))
    except NotImplementedError:
        return {"refused": "kinds"}
    except ValueError as error:
        if "promote" in str(error):
            return {"refused": "kinds"}
        if "auto-fit" in str(error):
            return {"refused": "memory"}
        raise
    tokens, _ = planner.get_kv_cache_capacity(config, planner.generate_scheduler_kv_cache_config(configs))
    return {
        "largest_len": config.model_config.max_model_len,
        "blocks": configs[0].num_blocks,
        "tokens": tokens,
        "groups": sorted(len(group.layer_names) for group in configs[0].kv_cache_groups),
    }


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps([plan(case) for case in json.load(sys.stdin)]))

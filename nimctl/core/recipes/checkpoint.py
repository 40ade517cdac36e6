"""What a checkpoint says about itself in its `config.json`, and a recipe for one that has none of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.recipes import Architecture, Engine, EngineOptions, Recipe


def recipe_of_folder(folder: Path, *, name: str | None = None, weights: str | None = None) -> Recipe:
    """A recipe for the checkpoint in `folder`, served as `name`. Raises `weights-missing` or `weights-incomplete`.

    `weights` is the address under which the container finds it, when that is not the folder itself.
    """
    config = _read(folder)
    text = config.get("text_config") or config
    return Recipe(
        name=name or folder.name,
        title=f"the checkpoint in {folder}",
        runs="ours",
        weights=weights or str(folder.absolute()),
        served_names=(name or folder.name,),
        weights_bytes=sum(f.stat().st_size for f in folder.glob("*.safetensors")) or None,
        context=text.get("max_position_embeddings"),
        architecture=architecture(config),
        engine=Engine(common=EngineOptions({"load-format": "safetensors"})),
        image_limit_key=image_limit_key(config),
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if architecture(config) is None:
            raise ValueError("num_attention_heads or num_hidden_layers is missing")
    except FileNotFoundError:
        raise NimctlError(
            "weights-missing",
            f"{folder} holds no checkpoint",
            cause="there is no config.json in it",
            fix="Name the folder that holds config.json and the *.safetensors files.",
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise NimctlError(
            "weights-incomplete",
            f"{path} does not describe a model",
            cause=f"{type(error).__name__}: {error}",
            fix="Copy the checkpoint again; its config.json names the sizes of the model.",
        ) from error
    return dict(config)


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """The sizes that layouts must divide, from a Hugging Face config.json; None when the heads are not told."""
    text = config.get("text_config") or config
    vision = config.get("vision_config") or {}
    heads, layers = text.get("num_attention_heads"), text.get("num_hidden_layers")
    if not isinstance(heads, int) or not isinstance(layers, int):
        return None
    vision_heads = vision.get("num_attention_heads") or vision.get("vt_num_attention_heads") or vision.get("num_heads")
    return Architecture(
        attention_heads=heads,
        layers=layers,
        vision_heads=vision_heads if isinstance(vision_heads, int) else None,
        experts=_first(text, "n_routed_experts", "num_experts", "num_local_experts") or 0,
        moe_intermediate=_first(text, "moe_intermediate_size") or 0,
        quant_group=_quant_group(text.get("quantization_config") or config.get("quantization_config") or {}),
    )


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[n] for n in names if isinstance(config.get(n), int)), None)


def _quant_group(quantization: Mapping[str, Any]) -> int:
    sizes = [g.get("weights", {}).get("group_size") for g in (quantization.get("config_groups") or {}).values()]
    return next((s for s in (*sizes, quantization.get("group_size")) if isinstance(s, int) and s > 0), 1)


def image_limit_key(config: Mapping[str, Any]) -> str:
    """The engine's own name of the image modality: models with a unified vision chunk count those instead."""
    return "vision_chunk" if config.get("use_unified_vision_chunk") else "image"

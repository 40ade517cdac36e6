"""A recipe for any checkpoint folder that has no recipe of its own, read from its `config.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.recipes import Architecture, Engine, EngineOptions, Recipe


def recipe_of_folder(folder: Path, name: str | None = None) -> Recipe:
    """What the checkpoint in `folder` says about itself. Raises `weights-missing` or `weights-incomplete`."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        architecture = _architecture(text, config.get("vision_config"))
    except FileNotFoundError:
        raise NimctlError(
            "weights-missing",
            f"{folder} holds no checkpoint",
            cause="there is no config.json in it",
            fix="Name the folder that holds config.json and the *.safetensors files.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NimctlError(
            "weights-incomplete",
            f"{path} does not describe a model",
            cause=f"{type(error).__name__}: {error}",
            fix="Copy the checkpoint again; config.json needs num_attention_heads and num_hidden_layers.",
        ) from error
    unified = bool(config.get("use_unified_vision_chunk"))
    return Recipe(
        name=name or folder.name,
        title=f"the checkpoint in {folder}",
        runs="ours",
        weights=str(folder.absolute()),
        served_names=(name or folder.name,),
        weights_bytes=sum(f.stat().st_size for f in folder.glob("*.safetensors")) or None,
        context=text.get("max_position_embeddings"),
        architecture=architecture,
        engine=Engine(common=EngineOptions({"load-format": "safetensors"})),
        image_limit_key="vision_chunk" if unified else "image",
    )


def _architecture(text: Mapping[str, Any], vision: Mapping[str, Any] | None) -> Architecture:
    experts = text.get("n_routed_experts") or text.get("num_local_experts") or text.get("num_experts") or 0
    vision_heads = (vision or {}).get("num_attention_heads") or (vision or {}).get("num_heads")
    return Architecture(
        attention_heads=int(text["num_attention_heads"]),
        layers=int(text["num_hidden_layers"]),
        vision_heads=int(vision_heads) if vision_heads else None,
        experts=int(experts),
        moe_intermediate=int(text.get("moe_intermediate_size") or 0) if experts else 0,
    )

"""LoRA adapters: every sub-folder of NIM_PEFT_SOURCE that holds one, as the engine's options.

The layout of such a folder is NIM's: https://docs.nvidia.com/nim/large-language-models/latest/advanced-use-cases/finetune-lora.html
"""

import json
from pathlib import Path
from typing import Any

from nimctl.core.engine_options import Option, options_of
from nimctl.core.errors import NimctlError

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Ranks that the engine has kernels for: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/lora.py
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MOST = 1000  # more would not fit a command line


def options_for(source: Path | None) -> tuple[Option, ...]:
    """The options for the adapters in `source`, by name; none without a source. Raises `config-invalid`."""
    if source is None:
        return ()
    try:
        folders = sorted(path for path in source.iterdir() if (path / _CONFIG).is_file())
    except OSError as error:
        raise _invalid(f"the folder {source} cannot be read", str(error)) from error
    if len(folders) > _MOST:
        raise _invalid(f"{source} holds {len(folders):,} adapters", f"at most {_MOST:,} can be served")
    if not folders:
        return ()
    rank = max(map(_rank, folders))
    least = next((known for known in _RANKS if known >= rank), _RANKS[-1])
    return options_of({"lora-modules": [_module(path) for path in folders], "max-lora-rank": least})


def _module(folder: Path) -> str:
    plain = not set("=,") & set(str(folder))
    return f"{folder.name}={folder}" if plain else json.dumps({"name": folder.name, "path": str(folder)})


def _rank(folder: Path) -> int:
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise _invalid(f"the adapter in {folder} has no weights", f"neither {' nor '.join(_WEIGHTS)} is there")
    try:
        found: Any = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid(f"{folder / _CONFIG} cannot be read", str(error)) from error
    rank = found.get("r") if isinstance(found, dict) else None
    if type(rank) is not int or not 0 < rank <= _RANKS[-1]:
        raise _invalid(f"the rank r in {folder / _CONFIG} cannot be used", f"it is {rank!r}")
    return rank


def _invalid(message: str, cause: str) -> NimctlError:
    return NimctlError(
        "config-invalid",
        message,
        cause=cause,
        fix="Correct it, or name another folder with NIM_PEFT_SOURCE; each adapter is one sub-folder of it.",
    )

"""What a matrix becomes in a checkpoint: one tensor, or packed values with their scales. Pure.

Names and shapes are those that the writers of each format use: compressed-tensors
(https://github.com/vllm-project/compressed-tensors), Model Optimizer (https://github.com/NVIDIA/Model-Optimizer) and
the block-scaled FP8 of DeepSeek (https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/README_WEIGHTS.md).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cache
from typing import Any

from nimctl.core.memory.settings import Settings, UnknownArchitecture

Part = tuple[str, str, tuple[int, ...]]  # suffix of the name, type, shape

_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def ceil_div(value: int, by: int) -> int:
    """`value / by`, rounded up."""
    return -(-value // by)


@dataclass(frozen=True)
class Scheme:
    """How matrices are written: `kind` of those that are quantised, `plain` type of all others.

    `ignored` are names, globs and (`re:`) expressions of modules that stay plain; `scale` is the type of FP8 scales.
    """

    plain: str
    kind: str = "plain"
    group: int = 0
    ignored: tuple[str, ...] = ()
    scale: str = "F32"

    def parts(self, module: str, rows: int, columns: int, *, quantised: bool = True) -> Iterator[Part]:
        """The tensors that the weight of `module`, `rows` outputs by `columns` inputs, is written as."""
        kind = self.kind if quantised and not _ignored(self.ignored, module) else "plain"
        if kind == "fp8-block":
            yield "weight", "F8_E4M3", (rows, columns)
            yield "weight_scale_inv", self.scale, (ceil_div(rows, self.group), ceil_div(columns, self.group))
        elif kind == "int4":
            yield "weight_packed", "I32", (rows, ceil_div(columns, 8))
            yield "weight_scale", self.plain, (rows, ceil_div(columns, self.group))
            yield "weight_shape", "I32", (2,)
        elif kind == "nvfp4":
            yield "weight", "U8", (rows, ceil_div(columns, 2))
            yield "weight_scale", "F8_E4M3", (rows, ceil_div(columns, self.group))
            yield "weight_scale_2", "F32", ()
            yield "input_scale", "F32", ()
        elif kind == "fp8-tensor":
            yield "weight", "F8_E4M3", (rows, columns)
            yield "weight_scale", "F32", ()
            yield "input_scale", "F32", ()
        else:
            yield "weight", self.plain, (rows, columns)


@cache
def _expression(patterns: tuple[str, ...]) -> "re.Pattern[str] | None":
    """One expression for all: a list that names each layer has hundreds, and hundreds of modules are asked for."""
    if not patterns:
        return None
    expressions = (f"(?:{pattern[3:]})" for pattern in patterns if pattern.startswith("re:"))
    plain = [pattern for pattern in patterns if not pattern.startswith("re:")]
    names = (rf"{re.escape(pattern)}(?:\..*)?\Z" for pattern in plain)
    try:
        return re.compile("|".join((*expressions, *names, *map(translate, plain))))
    except re.error as error:
        raise UnknownArchitecture(f"config.json: the modules left unquantised are no valid list: {error}") from None


def _ignored(patterns: tuple[str, ...], module: str) -> bool:
    expression = _expression(patterns)
    return expression is not None and expression.match(module) is not None


def plain_type(*levels: Settings) -> str:
    """The model's own type, as the safetensors format names it, from the first of `levels` that gives one.

    Raises UnknownArchitecture.
    """
    settings = levels[0]
    said = next((t for level in levels for name in ("dtype", "torch_dtype") if (t := level.text(name))), None)
    if said not in _TYPES:
        raise UnknownArchitecture(f"{settings.where}: the data type {said!r} is not known")
    return _TYPES[said]


def scheme_of(config: Mapping[str, Any], text: Settings, exported: Mapping[str, Any] | None = None) -> Scheme:
    """How the checkpoint's matrices are written, by its configuration or by `hf_quant_config.json` (`exported`).

    Raises UnknownArchitecture for a format whose tensors are not known here.
    """
    whole = Settings(config)
    said = whole.inner("quantization_config") or text.inner("quantization_config")
    if said is not None and said.text("quant_method") == "mxfp4":
        return Scheme("BF16", "mxfp4", 32)  # gpt-oss, whose configuration gives no type
    plain = plain_type(text, whole)
    if said is None:
        document = Settings(exported or {}, "hf_quant_config.json").inner("quantization")
        return Scheme(plain) if document is None else _optimizer(document, plain, "exclude_modules")
    method = said.text("quant_method")
    if method == "modelopt":
        return _optimizer(said, plain, "ignore")
    if method == "fp8" and said.found.get("weight_block_size") == [128, 128]:
        return Scheme(plain, "fp8-block", 128, said.texts("modules_to_not_convert"))
    if method == "compressed-tensors":
        return _compressed(said, plain)
    raise UnknownArchitecture(f"{said.where}: the quantisation {method!r} in this form is not known")


def _optimizer(said: Settings, plain: str, ignored: str) -> Scheme:
    algorithm = said.text("quant_algo")
    if algorithm == "NVFP4":
        return Scheme(plain, "nvfp4", 16, said.texts(ignored))
    if algorithm == "FP8":
        return Scheme(plain, "fp8-tensor", 0, said.texts(ignored))
    raise UnknownArchitecture(f"{said.where}: the quantisation {algorithm!r} is not known")


def _compressed(said: Settings, plain: str) -> Scheme:
    """Four-bit integers in groups, the one form that is known here."""
    groups = said.inner("config_groups")
    each = [] if groups is None else [groups.inner(name) for name in groups.found]
    weights = each[0].inner("weights") if len(each) == 1 and each[0] is not None else None
    known = (
        weights is not None
        and said.text("format") == "pack-quantized"
        and (weights.found.get("num_bits"), weights.found.get("type")) == (4, "int")
        and weights.flag("symmetric")
        and weights.found.get("actorder") is None
    )
    if weights is None or not known:
        raise UnknownArchitecture(f"{said.where}: only symmetric 4-bit integers, pack-quantized in groups, are known")
    return Scheme(plain, "int4", weights.some("group_size"), said.texts("ignore"))

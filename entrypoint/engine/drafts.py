"""The draft model of speculative decoding: which one the engine's options name, and the options with it at hand. Pure.

The engine is offline and has no keys, so that a draft has to lie ready as the weights do. How it is named:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/speculative.py
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nimctl.core.address import without_secrets
from nimctl.core.engine_options import Option
from nimctl.core.errors import NimctlError

_CONFIG, _SHORT, _MODEL, _METHOD = "speculative-config", "sc", "spec-model", "spec-method"
# What proposes without weights; some of these words may stand as the model too.
_WITHOUT_WEIGHTS = frozenset({"ngram", "[ngram]", "ngram_gpu", "suffix", "extract_hidden_states", "custom_class"})
_HUB = "hf://"
_EXAMPLE = '--speculative-config \'{"method": "eagle3", "model": "org/name", "num_speculative_tokens": 3}\''


@dataclass(frozen=True)
class Draft:
    """A draft model by its `name` in the options, the `address` that it is brought from, and the method that uses it.

    `address` is a source URI or an absolute path.
    """

    name: str
    address: str
    method: str

    @property
    def source(self) -> str:
        """The address as it may be shown: without a password or a signature."""
        return without_secrets(self.address) if "://" in self.address else self.address

    @property
    def shown(self) -> str:
        """The name as it may be shown."""
        return self.source if "://" in self.name else self.name

    def is_part_of(self, weights: str) -> bool:
        """Whether the draft is in the checkpoint at `weights` itself, as the layers that predict more tokens are."""
        bare = re.split("[:@?]", weights.removeprefix(_HUB))[0] if weights.startswith(_HUB) else weights
        return self.address in (weights, _HUB + bare)


def named(options: Sequence[Option]) -> Draft | None:
    """The draft model with weights of its own that `options` (each at most once) name; None where there is none.

    Raises `usage` for what the engine could not read.
    """
    config = _config(options)
    method, model = config.get("method") or "", config.get("model")
    if model is None or method in _WITHOUT_WEIGHTS or model in _WITHOUT_WEIGHTS:
        return None
    if not isinstance(model, str) or not model or not isinstance(method, str):
        raise _unreadable("its model and its method are no text")
    if not method and "/" not in model and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", model):
        return None  # a class that proposes
    return Draft(model, _address(model, config.get("revision")), method)


def replaced(options: Sequence[Option], path: str) -> tuple[Option, ...]:
    """`options` with the draft that `named` finds at `path` in the place of its address; a folder has no revision."""
    found: list[Option] = []
    for option in options:
        key = _key(option)
        if option.name == _CONFIG:
            config = _read(option)
            config.pop("revision", None)
            if "model" in config:
                config["model"] = path
            found.append(Option(option.name, (f"--{_CONFIG}", json.dumps(config))))
        elif key == "model":
            found.append(
                Option(option.name, (f"--{option.name}" if option.name == _MODEL else f"--{_CONFIG}.model", path))
            )
        elif key != "revision":
            found.append(option)
    return tuple(found)


def _config(options: Sequence[Option]) -> dict[str, Any]:
    """The settings as the engine puts them together: single keys go before the JSON, which they replace as a whole."""
    whole: dict[str, Any] = {}
    single: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    for option in options:
        if option.name == _CONFIG:
            whole = _read(option)
        elif option.name in (_MODEL, _METHOD):
            flags[option.name.removeprefix("spec-")] = " ".join(option.values)
        elif key := _key(option):
            single[key] = " ".join(option.values)
    return (single or whole) | flags


def _key(option: Option) -> str:
    """`model` of `--speculative-config.model`, and of `--spec-model`; empty for other options."""
    if option.name == _MODEL:
        return "model"
    head, _, key = option.name.partition(".")
    return key if head in (_CONFIG, _SHORT) else ""


def _read(option: Option) -> dict[str, Any]:
    try:
        found = json.loads(" ".join(option.values))
    except ValueError as error:
        raise _unreadable("it is no JSON" if option.values else "it has no value") from error
    if not isinstance(found, dict):
        raise _unreadable("it is no JSON object")
    return found


def _address(model: str, revision: Any) -> str:
    """Where to bring it from; a bare name is one on the Hub, as for the engine."""
    if model.startswith(("/", "file://")):
        return model
    address = model if "://" in model else _HUB + model
    if not revision:
        return address
    if not address.startswith(_HUB) or re.search("[:@?]", address.removeprefix(_HUB)):
        raise _unreadable(
            f"its revision does not go with the model {without_secrets(address)}, which has its own place for it"
        )
    return f"{address}@{revision}"


def _unreadable(cause: str) -> NimctlError:
    return NimctlError("usage", f"--{_CONFIG} cannot be read", cause=cause, fix=f"Write it like {_EXAMPLE}.")

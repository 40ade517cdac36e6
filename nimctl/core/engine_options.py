"""The engine's command line as options: read in one way by the host and by the container."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nimctl.core.errors import NimctlError

# Other forms: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/engine/arg_utils.py
_SHORT = {
    "-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size", "-n": "nnodes",
    "-dpl": "data-parallel-size-local", "-dpn": "data-parallel-rank", "-dpr": "data-parallel-start-rank",
    "-dpa": "data-parallel-address", "-dpp": "data-parallel-rpc-port", "-dpb": "data-parallel-backend",
    "-dph": "data-parallel-hybrid-lb", "-dpe": "data-parallel-external-lb", "-r": "node-rank", "-q": "quantization",
    "-dpm": "data-parallel-multi-port-external-lb", "-dcp": "decode-context-parallel-size", "-ac": "attention-config",
    "-pcp": "prefill-context-parallel-size", "-ep": "enable-expert-parallel", "-sc": "speculative-config",
    "-cc": "compilation-config", "-asc": "api-server-count", "-dc": "diffusion-config",
    "--device-memory-utilization": "gpu-memory-utilization",
}  # fmt: skip

# Options whose value is a JSON object: what several layers say of one is put together key by key.
OBJECTS = frozenset(
    {
        "additional-config", "attention-config", "aux-output-config", "compilation-config",
        "custom-histogram-buckets", "default-chat-template-kwargs", "default-mm-loras", "diffusion-config",
        "ec-manager-config", "ec-transfer-config", "engram-config", "eplb-config", "fault-tolerance-config",
        "hf-overrides", "ir-op-priority", "kernel-config", "kv-events-config", "kv-transfer-config",
        "limit-mm-per-prompt", "logging-config", "media-io-kwargs", "mm-processor-kwargs", "model-class-overrides",
        "model-loader-extra-config", "override-generation-config", "pooler-config", "profiler-config",
        "pt-load-map-location", "quantization-config", "reasoning-config", "speculative-config",
        "structured-outputs-config", "watermark-config", "weight-transfer-config",
    }
)  # fmt: skip
# What such an object is about: one that names another takes the place of the whole, or a draft model of one method
# would be left under the name of another.
_ABOUT = {
    "speculative-config": ("method", "model"),
    "kv-transfer-config": ("kv_connector",),
    "ec-transfer-config": ("ec_connector",),
    "weight-transfer-config": ("backend",),
}


@dataclass(frozen=True)
class Option:
    """One engine option: its long name without dashes and the words it was written with."""

    name: str
    words: tuple[str, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """What follows the flag, also when it was written with an equals sign."""
        flag, equals, value = self.words[0].partition("=")
        return (value,) if equals and flag.startswith("-") else self.words[1:]


def parse_options(words: Sequence[str]) -> tuple[Option, ...]:
    """Raw engine arguments as options. Raises `usage` for a value without an option."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word):
            groups.append([word])
        elif groups:
            groups[-1].append(word)
        else:
            raise NimctlError(
                "usage",
                f"engine argument {word!r} belongs to no option",
                cause="engine arguments start with an option such as --max-model-len",
                fix="Name the model with NIM_MODEL_PATH; write options as --name value.",
            )
    return tuple(Option(_long_name(group[0]), tuple(group)) for group in map(_spelt_out, groups))


def _spelt_out(group: list[str]) -> list[str]:
    """`-O3`, `-O=3` and `-O 3` as the option that they stand for."""
    word = group[0]
    if not re.fullmatch(r"-O=?[0-9]|-O", word) or (word == "-O" and not group[1:]):
        return group
    return ["--optimization-level", *(word[2:].lstrip("="), *group[1:])[word == "-O" :]]


# Names that a plan reads and people shorten: the engine's parser takes any beginning that is no other option's.
_SHORTENED = (
    "tensor-parallel-size", "pipeline-parallel-size", "gpu-memory-utilization", "kv-cache-memory-bytes",
    "max-model-len", "max-num-seqs", "max-num-batched-tokens", "enable-expert-parallel", "speculative-config",
    "decode-context-parallel-size", "prefill-context-parallel-size", "language-model-only", "kv-cache-dtype",
)  # fmt: skip
_LEAST_OF_A_NAME = 6


def _long_name(word: str) -> str:
    flag, dot, key = word.partition("=")[0].partition(".")
    name = _SHORT.get(flag) or flag.lstrip("-").replace("_", "-")
    if dot:
        return f"{_SHORT.get(f'--{name}', name)}.{key}"
    name = _SHORT.get(f"--{name}", name)
    if name in _SHORTENED or len(name) < _LEAST_OF_A_NAME:
        return name
    meant = [known for known in _SHORTENED if known.startswith(name)]
    return meant[0] if len(meant) == 1 else name


_REPEATABLE = {"middleware"}


Value = str | int | float | bool | Sequence[str] | Mapping[str, Any]


def options_of(args: Mapping[str, Value]) -> tuple[Option, ...]:
    """Arguments as recipes write them, by name: true is a bare flag, false its contrary, a list several words."""
    options = []
    for name, value in args.items():
        if value is True:
            options.append(Option(name, (f"--{name}",)))
        elif value is False:
            options.append(Option(f"no-{name}", (f"--no-{name}",)))
        elif isinstance(value, Mapping):
            options.append(_object(name, value))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            options.append(Option(name, (f"--{name}", *value)))
        else:
            words = str(value).split() if name == "allowed-media-domains" else [str(value)]
            options.append(Option(name, (f"--{name}", *words)))
    return tuple(options)


@dataclass(frozen=True)
class Layer:
    """Options that come from one place, which `source` names; of two for the same thing the later one counts."""

    source: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Resolved:
    """One option as the engine gets it, and the highest layer that it comes from.

    `parts` tells for an object which layer each of its keys comes from, where there are several.
    """

    option: Option
    source: str
    parts: Mapping[str, str] = field(default_factory=dict)


def merge(*levels: Iterable[Option]) -> tuple[Option, ...]:
    """All options, lowest level first; a later one replaces an earlier one of the same name instead of repeating it.

    Objects are put together key by key.
    """
    return tuple(found.option for found in resolve(Layer(str(i), tuple(level)) for i, level in enumerate(levels)))


def resolve(layers: Iterable[Layer]) -> tuple[Resolved, ...]:
    """What all layers, lowest first, come to. Each option is there once, except those that add up.

    Upper layers are put together before they go over a lower one: so it does not matter which of them were put together
    before, and the host, who has the user's alone at first, comes to the same.
    """
    found: dict[str, list[Resolved]] = {}
    for layer in layers:
        for key, option in _once_each(layer.options).items():
            found[key] = [*found.pop(key, ()), Resolved(option, layer.source)]
    return tuple(_folded(several) for several in found.values())


def _folded(several: Sequence[Resolved]) -> Resolved:
    """What the same option comes to, said by several layers, lowest first."""
    top = several[-1]
    for below in reversed(several[:-1]):
        upper, lower = object_of(top.option), object_of(below.option)
        if upper is None or lower is None:
            break
        if not _is_another(top.option.name, lower, upper):
            top = _over(below.source, lower, top, upper)
    return top


def _once_each(options: Iterable[Option]) -> dict[str, Option]:
    """The options of one layer by what they set: the last of a kind counts, single keys of an object go over it."""
    found: dict[str, Option] = {}
    for option in options:
        name, _, path = option.name.partition(".")
        key = f"{option.name} {option.words}" if option.name in _REPEATABLE else _same(name)
        if path and name in OBJECTS:
            here = object_of(found[key]) if key in found else None
            option = _object(name, _joined(here or {}, _single(path, " ".join(option.values)), lists=True))  # noqa: PLW2901
        elif path:
            key = option.name
        found.pop(key, None)
        found[key] = option
    return found


def _over(source: str, lower: Mapping[str, Any], top: Resolved, upper: Mapping[str, Any]) -> Resolved:
    """`top`, whose object is `upper`, with what `lower` has beside it from the layer `source`."""
    parts = {**dict.fromkeys(lower, source), **(top.parts or dict.fromkeys(upper, top.source))}
    whole = _joined(lower, upper)
    same = set(parts.values()) == {top.source}
    return Resolved(_object(top.option.name, whole), top.source, {} if same else {key: parts[key] for key in whole})


def object_of(option: Option) -> dict[str, Any] | None:
    """The value of an option that takes an object; None for other options, and for what is no JSON object."""
    if option.name not in OBJECTS:
        return None
    try:
        found = json.loads(" ".join(option.values))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _object(name: str, value: Mapping[str, Any]) -> Option:
    return Option(name, (f"--{name}", json.dumps(value, separators=(",", ":"))))


def _is_another(name: str, lower: Mapping[str, Any], upper: Mapping[str, Any]) -> bool:
    return any(key in upper and upper[key] != lower.get(key, upper[key]) for key in _ABOUT.get(name, ()))


def _joined(lower: Mapping[str, Any], upper: Mapping[str, Any], *, lists: bool = False) -> dict[str, Any]:
    """`lower` with what `upper` says in its place, objects within them alike; with `lists`, lists grow."""
    whole = dict(lower)
    for key, value in upper.items():
        here = whole.get(key)
        if isinstance(here, dict) and isinstance(value, dict):
            whole[key] = _joined(here, value, lists=lists)
        elif lists and isinstance(here, list) and isinstance(value, list):
            whole[key] = here + value
        else:
            whole[key] = value
    return whole


_MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _single(path: str, text: str) -> dict[str, Any]:
    """`--name.path text` as an object, with the value read as the engine reads it.

    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/utils/argparse_utils.py
    """
    value: Any
    try:
        value = text.split(",") if path.endswith("+") else json.loads(text)
    except ValueError:
        number = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text)
        value = int(float(number[1]) * _MULTIPLES[number[2]]) if number else text
    for key in reversed(path.removesuffix("+").split(".")):
        value = {key: value}
    found: dict[str, Any] = value
    return found


def _same(name: str) -> str:
    """`--no-x` contradicts `--x`: both are the same option."""
    return name.removeprefix("no-")

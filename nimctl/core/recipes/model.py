"""What a recipe says, as frozen dataclasses: a model, its checkpoints, the engine's options, and what is known of both.

Compute capabilities are written as NVIDIA does, "9.0" for Hopper: https://developer.nvidia.com/cuda-gpus
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nimctl.core.errors import NimctlError

SCHEMA = "nimctl.recipe/1"

Device = Literal["cuda", "cpu"]
Capability = tuple[int, int]

# The parts of config.json that a variant changes key by key; all others it replaces as a whole.
_PARTS = frozenset({"text_config", "vision_config"})


@dataclass(frozen=True)
class EngineOptions:
    """Engine arguments by name without dashes (true means a bare flag) and environment variables."""

    args: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def under(self, own: "EngineOptions") -> "EngineOptions":
        """These options and those of `own`, which win."""
        return EngineOptions({**self.args, **own.args}, {**self.env, **own.env})


@dataclass(frozen=True)
class Engine:
    """Options for every device, then those for one; then those of a GPU generation, which win.

    `generations` go by the compute capability they begin with: a GPU takes the largest that it reaches, and only that.
    """

    common: EngineOptions = field(default_factory=EngineOptions)
    cuda: EngineOptions = field(default_factory=EngineOptions)
    cpu: EngineOptions = field(default_factory=EngineOptions)
    generations: Mapping[str, EngineOptions] = field(default_factory=dict)

    def on(self, device: Device, capability: Capability | None = None) -> EngineOptions:
        """The options for `device`, common ones included, and those for GPUs of `capability` where it is known."""
        options = self.common.under(self.cuda if device == "cuda" else self.cpu)
        if device == "cpu" or capability is None:
            return options
        reached = [key for key in self.generations if parse_capability(key) <= capability]
        return options.under(self.generations[max(reached, key=parse_capability)]) if reached else options

    def under(self, own: "Engine") -> "Engine":
        """These options and those of `own`, which win place by place."""
        generations = {
            key: self.generations.get(key, EngineOptions()).under(own.generations.get(key, EngineOptions()))
            for key in (*self.generations, *(k for k in own.generations if k not in self.generations))
        }
        return Engine(self.common.under(own.common), self.cuda.under(own.cuda), self.cpu.under(own.cpu), generations)


@dataclass(frozen=True)
class Variant:
    """Another checkpoint of the recipe's model.

    `config` holds the keys of its config.json that differ from the recipe's (null removes one; `text_config` and
    `vision_config` are compared key by key), `exported` its `hf_quant_config.json`. `needs` is the lowest compute
    capability that runs it, `native_from` that from which GPUs compute in its format; below, the engine keeps the
    weights in it and computes in 16 bits. From `preferred_from` on it is chosen before the recipe's own. What is not
    given, key and engine included, is as in the recipe; the engine's options given here win over the recipe's.
    """

    format: str
    weights: str
    weights_bytes: int | None = None
    disk_bytes: int | None = None
    config: Mapping[str, Any] | None = None
    config_source: str | None = None
    exported: Mapping[str, Any] | None = None
    needs: str | None = None
    native_from: str | None = None
    preferred_from: str | None = None
    engine: Engine = field(default_factory=Engine)
    key: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Licence:
    """The terms of the weights: name, where they are written, and in `terms` what a user must know before using them.

    `gated` weights are only handed out to accounts that accepted the terms on the model's page.
    """

    name: str
    link: str
    terms: str = ""
    gated: bool = False


@dataclass(frozen=True)
class When:
    """Where a defect shows: everywhere, or where all that is given holds.

    `formats` of the checkpoint and sizes of `tensor` are alternatives, as are `gpus` (words of their names) and
    `capabilities` ("9.0"). `pipeline_from` so many stages and `nodes_from` so many machines on, with `expert`
    parallelism or without, with `drafts` or without, with a driver of NVIDIA's before the release `driver_before`.
    """

    formats: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    tensor: tuple[int, ...] = ()
    pipeline_from: int | None = None
    nodes_from: int | None = None
    expert: bool | None = None
    drafts: bool | None = None
    driver_before: str | None = None


@dataclass(frozen=True)
class Defect:
    """A known defect and where it is reported; `engine_before` is the first engine version known to be without it."""

    id: str
    text: str
    link: str
    engine_before: str | None = None
    when: When = field(default_factory=When)


@dataclass(frozen=True)
class Draft:
    """A way of speculative decoding: vLLM's `method` and the draft `model` (a source URI; None: in the weights).

    `tokens` is the number of draft tokens a step that the source recommends; `weights_bytes` those of the draft model.
    """

    method: str
    tokens: int
    link: str
    model: str | None = None
    weights_bytes: int | None = None
    min_engine: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The engine's own settings of it."""
        found: dict[str, Any] = {"method": self.method}
        if self.tokens:
            found["num_speculative_tokens"] = self.tokens
        return found | ({"model": self.model.removeprefix("hf://")} if self.model else {})


@dataclass(frozen=True)
class Recipe:
    """One model. `runs` says which image serves it: `ours` (vLLM with our entrypoint) or `nim` (NVIDIA's own).

    `weights` is a source URI (`builtin://`, `file://`, `hf://`, `ngc://`), empty for `nim` images, which bring their
    own downloader. Sizes in bytes. `context` in tokens. `key` names the environment variable of the API key that a
    pull or a download needs. `image_limit_key` is the engine's own name of the image modality.

    `weights`, `weights_bytes`, `disk_bytes`, `format`, `config` and `exported` are those of the default checkpoint,
    `variants` the others; see `on`. `config` holds the keys of config.json that decide tensors, cache and rotary
    table. `needs` is the lowest compute capability that runs the default checkpoint, `native_from` as in `Variant`,
    `min_engine` the lowest version of vLLM. `limits` is how many of each modality a request may hold, by the engine's
    own names. `gpus` are the machines that NVIDIA supports its image on, `profiles` the names it publishes.
    """

    name: str
    title: str
    runs: Literal["ours", "nim"]
    served_names: tuple[str, ...]
    weights: str = ""
    weights_bytes: int | None = None
    disk_bytes: int | None = None
    shm_bytes: int = 16 * 2**30
    context: int | None = None
    format: str = ""
    config: Mapping[str, Any] | None = None
    config_source: str | None = None
    exported: Mapping[str, Any] | None = None
    needs: str | None = None
    native_from: str | None = None
    variants: tuple[Variant, ...] = ()
    engine: Engine = field(default_factory=Engine)
    min_engine: str | None = None
    min_engine_source: str | None = None
    drafts: tuple[Draft, ...] = ()
    cpu: bool = False
    image: str | None = None
    runtime: str | None = None
    gpus: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    key: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    image_limit_key: str = "image"
    max_images: int = 4
    licence: Licence | None = None
    defects: tuple[Defect, ...] = ()
    page: str | None = None
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA

    @property
    def formats(self) -> tuple[str, ...]:
        """The precisions that there are checkpoints of, the default's first."""
        return (self.format, *(variant.format for variant in self.variants))

    def on(self, wanted: str) -> "Recipe":
        """This recipe with the checkpoint in the format `wanted` in place of the default; the other variants stay.

        Raises `usage` for a format of which there is no checkpoint.
        """
        if wanted == self.format:
            return self
        variant = next((v for v in self.variants if v.format == wanted), None)
        if variant is None:
            raise NimctlError(
                "usage",
                f"{self.name} has no checkpoint in the format {wanted!r}",
                cause=f"known formats: {', '.join(filter(None, self.formats)) or 'none'}",
                fix="Name one of them, or the checkpoint itself as hf://owner/name.",
            )
        config = changed(self.config, variant.config)
        return replace(
            self,
            format=variant.format,
            weights=variant.weights,
            weights_bytes=variant.weights_bytes,
            disk_bytes=variant.disk_bytes,
            config=config,
            config_source=variant.config_source or self.config_source,
            exported=variant.exported,
            needs=variant.needs,
            native_from=variant.native_from,
            engine=self.engine.under(variant.engine),
            key=variant.key or self.key,
            notes=(*self.notes, *variant.notes),
            variants=tuple(v for v in self.variants if v is not variant),
        )


def changed(config: Mapping[str, Any] | None, changes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`config` with the keys of `changes`: null removes a key, the parts of a model are changed key by key."""
    if config is None or not changes:
        return config
    result = dict(config)
    for key, value in changes.items():
        old = result.get(key)
        if value is None:
            result.pop(key, None)
        elif key in _PARTS and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = changed(old, value)
        else:
            result[key] = value
    return result


def parse_capability(text: str) -> Capability:
    """A compute capability such as "9.0" in numbers. Raises ValueError."""
    major, dot, minor = text.partition(".")
    if not (dot and 0 < len(major) < 3 and len(minor) == 1 and text.isascii() and (major + minor).isdigit()):
        raise ValueError(f"{text!r} is not a compute capability such as 9.0")
    return int(major), int(minor)

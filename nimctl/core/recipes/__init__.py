"""Recipes: what nimctl knows about a model, as YAML files in this folder. Data only; the schema is the dataclass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from nimctl.core.errors import NimctlError
from nimctl.core.plain import from_plain
from nimctl.core.yamlfile import read_yaml

SCHEMA = "nimctl.recipe/1"
DEFAULT_MODEL = "kimi-k2.5"

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Architecture:
    """The sizes that parallel layouts must divide. Zero experts means a dense model, None no vision tower."""

    attention_heads: int
    layers: int
    vision_heads: int | None = None
    experts: int = 0
    moe_intermediate: int = 0
    quant_group: int = 1


@dataclass(frozen=True)
class EngineOptions:
    """Engine arguments by name without dashes (true means a bare flag) and environment variables."""

    args: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """Options for every device, then those for one; the device's win."""

    common: EngineOptions = field(default_factory=EngineOptions)
    cuda: EngineOptions = field(default_factory=EngineOptions)
    cpu: EngineOptions = field(default_factory=EngineOptions)

    def on(self, device: Device) -> EngineOptions:
        """The options for `device`, common ones included."""
        own = self.cuda if device == "cuda" else self.cpu
        return EngineOptions({**self.common.args, **own.args}, {**self.common.env, **own.env})


@dataclass(frozen=True)
class Recipe:
    """One model. `runs` says which image serves it: `ours` (vLLM with our entrypoint) or `nim` (NVIDIA's own).

    `weights` is a source URI (`builtin://`, `file://`, `hf://`, `ngc://`), empty for `nim` images, which bring their
    own downloader. Sizes in bytes. `context` in tokens. `key` names the environment variable of the API key that a
    pull or a download needs. `image_limit_key` is the engine's own name of the image modality.
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
    architecture: Architecture | None = None
    engine: Engine = field(default_factory=Engine)
    cpu: bool = False
    image: str | None = None
    runtime: str | None = None
    key: str | None = None
    image_limit_key: str = "image"
    max_images: int = 4
    page: str | None = None
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA


def names() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(sorted(_files()))


@cache
def load(name: str) -> Recipe:
    """The recipe called `name`. Raises `model-unknown` with the nearest names, `config-invalid` for a broken file."""
    path = _files().get(name)
    if path is None:
        raise NimctlError(
            "model-unknown",
            f"there is no recipe {name!r}",
            cause=f"known recipes: {', '.join(names())}",
            fix="Name one of them, a folder with a checkpoint, or an image reference such as nvcr.io/nim/...:tag.",
        )
    return parse(read_yaml(path), str(path))


def parse(data: Any, where: str) -> Recipe:
    """A recipe from YAML data. Raises `config-invalid` with the key that does not fit."""
    try:
        recipe = from_plain(Recipe, data)
        if recipe.schema != SCHEMA:
            raise ValueError(f"schema is {recipe.schema!r}, not {SCHEMA!r}")
        if recipe.runs == "nim" and not recipe.image:
            raise ValueError("a recipe that runs NVIDIA's image needs 'image'")
        if recipe.runs == "ours" and not recipe.weights:
            raise ValueError("a recipe that runs our image needs 'weights'")
    except ValueError as error:
        raise NimctlError(
            "config-invalid", f"recipe {where} is not valid", cause=str(error), fix="Correct the key that is named."
        ) from error
    return recipe


@cache
def _files() -> dict[str, Path]:
    folder = Path(str(resources.files(__package__)))
    return {path.stem: path for path in folder.glob("*.yaml")}

"""What MODEL or IMAGE on the command line means, and which image serves it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nimctl import __version__
from nimctl.cli.config import Config
from nimctl.core import recipes
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.recipes import Recipe
from nimctl.core.recipes.checkpoint import recipe_of_folder

# An image reference names a registry, a tag or a digest; `organisation/name` alone is how people write a model.
_IMAGE = re.compile(
    r"(?:[a-z0-9\-]+(?:\.[a-z0-9\-]+)+(?::\d+)?/|localhost(?::\d+)?/|(?=[^@]*:[\w.\-]+$)|(?=.*@sha256:))"
    r"[a-z0-9][a-z0-9._\-]*(?:/[a-z0-9][a-z0-9._\-]*)*(?::[\w.\-]+)?(?:@sha256:[0-9a-f]{64})?"
)
_HUB_NAME = re.compile(r"[\w.\-]+/[\w.\-]+")


@dataclass(frozen=True)
class Target:
    """A recipe to serve. `image` is set when one was named; `folder` when the weights are a local folder."""

    recipe: Recipe
    origin: str
    image: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class ImageChoice:
    """The image that serves a target, why this one, and how it gets here when it is missing.

    Where one image alone will do, `identity` is what a lock claims of it, and `id` is what the daemon calls it where it
    is here.
    """

    reference: str
    origin: str
    how: Literal["pull", "build"]
    identity: ImageIdentity | None = None
    id: str | None = None


def resolve(
    argument: str | None, config: Config, image: str | None = None, *, describe: Callable[[str], Recipe] | None = None
) -> Target:
    """The target for MODEL|IMAGE (None: the configured model). Raises `model-unknown` or a `weights-*` error.

    `describe` makes the recipe of a checkpoint that has none, by its folder or address; else its list of files does.
    """
    name = argument or str(config.text("model"))
    origin = "the command line" if argument else config.origin("model")
    if name in recipes.names():
        return Target(recipes.load(name), origin, image=image)
    folder = Path(name.removeprefix("file://")).expanduser()
    if name.startswith(("/", ".", "~", "file://")) or folder.is_dir():
        folder = folder.absolute()
        recipe = describe(str(folder)) if describe else recipe_of_folder(folder)
        return Target(recipe, origin, image=image, folder=folder)
    if "://" in name:
        return _of_address(name, origin, config, image, describe)
    if _IMAGE.fullmatch(name):
        return Target(_recipe_of_image(name), origin, image=name)
    if _HUB_NAME.fullmatch(name):
        return _of_address(f"hf://{name}", origin, config, image, describe)
    return Target(recipes.load(name), origin)  # raises model-unknown with the names that exist


def _of_address(
    uri: str, origin: str, config: Config, image: str | None, describe: Callable[[str], Recipe] | None
) -> Target:
    """A recipe's own weights by their address, or any checkpoint of a source that can be asked for its files."""
    for name in recipes.names():
        if recipes.load(name).weights.lower() == uri.lower():
            return Target(recipes.load(name), origin, image=image)
    if describe:
        return Target(describe(uri), origin, image=image)
    from nimctl.cli import weights

    return Target(weights.describe(uri, config), origin, image=image)


def _recipe_of_image(reference: str) -> Recipe:
    repository = re.sub(r"(:[\w.\-]+)?(@sha256:.*)?$", "", reference)
    for name in recipes.names():
        known = recipes.load(name)
        if known.image and known.image.rsplit(":", 1)[0] == repository:
            return replace(known, image=reference)
    return Recipe(
        name=repository.rsplit("/", 1)[-1],
        title=reference,
        runs="nim",
        served_names=(),
        image=reference,
        key="NGC_API_KEY" if reference.startswith("nvcr.io/") else None,
    )


def image_for(target: Target, device: Literal["cuda", "cpu"], config: Config) -> ImageChoice:
    """The image of a target: the one named, NVIDIA's own, ours from the configured registry, or ours built here."""
    from nimctl.core.image_names import local_tag

    if target.image:
        return ImageChoice(target.image, "the command line", "pull")
    if target.recipe.runs == "nim":
        assert target.recipe.image is not None  # recipes.parse sees to it
        return ImageChoice(target.recipe.image, f"recipe {target.recipe.name}", "pull")
    if own := config.text(f"images.{device}"):
        return ImageChoice(own, config.origin(f"images.{device}"), "pull")
    if registry := config.text("images.registry"):
        return ImageChoice(f"{registry.rstrip('/')}/{device}:{__version__}", config.origin("images.registry"), "pull")
    return ImageChoice(local_tag(device), "no images.registry is configured, so it is built here", "build")


def device_for(config: Config, recipe: Recipe) -> Literal["cuda", "cpu"]:
    """Which of our images a recipe needs here: `cpu` when CPU was asked for, or for a CPU recipe without any GPU."""
    asked = config.text("gpus")
    if asked == "none":
        return "cpu"
    if asked is not None or not recipe.cpu:
        return "cuda"
    from nimctl.core.gpus.nvml import read_inventory  # costs start-up time, and here alone it is asked

    return "cuda" if read_inventory().gpus else "cpu"

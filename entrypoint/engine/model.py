"""What is served and on which GPUs: the recipe, the visible GPUs and the layout. Decisions only; nothing is started."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from entrypoint.engine.drafts import Draft
from entrypoint.engine.nodes import Role
from entrypoint.settings import Settings
from entrypoint.weights.checkpoint import Look, peek
from nimctl.core.address import without_secrets
from nimctl.core.engine_options import Option
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import ANONYMOUS, Access
from nimctl.core.gpus import Gpu, GpuInventory, select
from nimctl.core.planning.cluster import Cluster
from nimctl.core.planning.deciding import Decision, Request, decide_for, on_these
from nimctl.core.planning.profile import identity_of
from nimctl.core.planning.profiles import asked_for
from nimctl.core.recipes import Draft as DraftFigures
from nimctl.core.recipes import Recipe, load
from nimctl.core.recipes.checkpoint import image_limit_key

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Model:
    """The recipe to follow, the weights to serve and the names to serve them under.

    `weights_bytes` is what was seen of the weights themselves; None where the recipe's figure is all there is.
    `looked_into`: the configuration in the recipe is that of the weights. `runtime` are the engine options that they
    bring.
    """

    recipe: Recipe
    weights: str
    served_names: tuple[str, ...]
    weights_bytes: int | None = None
    looked_into: bool = False
    runtime: tuple[Option, ...] = ()

    @property
    def source(self) -> str:
        """The address of the weights as it may be shown: without a password or a signature."""
        return without_secrets(self.weights) if "://" in self.weights else self.weights

    @property
    def sees_images(self) -> bool:
        """True when the checkpoint is known to have a vision tower."""
        return bool(self.recipe.config and self.recipe.config.get("vision_config"))


def named_model(settings: Settings) -> Model:
    """The model that was asked for, as it is named: nobody has looked at its weights yet.

    Raises `model-unknown` for the recipe's name, `config-invalid` for a recipe that another image serves.
    """
    if settings.recipe:
        recipe = load(settings.recipe)
        if recipe.runs != "ours":
            raise NimctlError(
                "config-invalid",
                f"recipe {recipe.name} is not served by this image",
                cause="it describes NVIDIA's own image",
                fix="Start it on the host: nimctl run " + recipe.name,
            )
    else:
        name = settings.served_names[0] if settings.served_names else _name_of(settings.model_path or "")
        recipe = Recipe(name=name, title=name, runs="ours", served_names=(name,), weights=settings.model_path or "")
    if settings.model_path:
        recipe = _with_checkpoint(recipe, settings.model_path)
    return Model(recipe, settings.model_path or recipe.weights, settings.served_names or recipe.served_names)


def _with_checkpoint(recipe: Recipe, weights: str) -> Recipe:
    """The recipe with its own checkpoint at `weights` in place of the default, where it has one there."""
    place = identity_of(weights)  # a revision in the address names the same checkpoint
    found = next((v.format for v in recipe.variants if place and identity_of(v.weights) == place), None)
    return recipe.on(found) if found else recipe


def candidates(settings: Settings) -> tuple[str, ...]:
    """The addresses of the weights that may be served, by what was asked; the GPUs choose. Raises as `named_model`."""
    model = named_model(settings)
    if settings.model_path or model.recipe.config is None:
        return (model.weights,)
    formats = model.recipe.formats
    if settings.model_profile:
        with suppress(NimctlError):  # told when it is decided
            formats = (asked_for(model.recipe, settings.model_profile).format,)
    return tuple(model.recipe.on(name).weights for name in formats)


def on_gpus(settings: Settings, model: Model, device: Device, cluster: Cluster, request: Request) -> Model:
    """`model` with the checkpoint and the engine options for these GPUs; weights that were named stay.

    Raises as `decide_layout`.
    """
    recipe = model.recipe
    if settings.model_path:
        recipe = replace(recipe, variants=())
    recipe = on_these(recipe, cluster, device, request)
    return replace(model, recipe=recipe, weights=settings.model_path or recipe.weights)


def described(settings: Settings, model: Model, look: Look) -> Model:
    """`model` with what its weights say of themselves: a checkpoint's config.json is believed before the recipe."""
    recipe = model.recipe
    if look.config:
        recipe = replace(recipe, config=look.config, exported=look.exported, context=None)
        if not settings.recipe:
            recipe = replace(recipe, image_limit_key=image_limit_key(look.config))
    known = look.config is not None
    return replace(model, recipe=recipe, weights_bytes=look.weights_bytes, looked_into=known, runtime=look.runtime)


def with_draft(model: Model, draft: Draft, weights_bytes: int | None) -> Model:
    """`model` with the size that was seen of its draft model, which goes before the recipe's figure."""
    if weights_bytes is None:
        return model
    seen = DraftFigures(draft.method, tokens=0, link=draft.source, model=draft.name, weights_bytes=weights_bytes)
    return replace(model, recipe=replace(model.recipe, drafts=(seen, *model.recipe.drafts)))


def peeked(settings: Settings, model: Model, access: Access = ANONYMOUS) -> Model:
    """`model` with what can be said of its weights without the network."""
    return described(settings, model, peek(model.weights, settings.cache_path, access))


def _name_of(weights: str) -> str:
    """The served name of a model without a recipe: the source without scheme, version and keys, or the folder's name.

    As NIM derives it: https://docs.nvidia.com/nim/large-language-models/2.1.4/deployment/model-free-nim.html
    """
    scheme, _, rest = without_secrets(weights).partition("://") if "://" in weights else ("", "", Path(weights).name)
    if scheme in ("hf", "ngc"):
        rest = re.split("[:@]", rest)[0]
    return rest.strip("/").replace(":", "-") or "model"


def engine_device(settings: Settings, vllm_version: str | None) -> Device:
    """What the engine was built for: as the image says, else from the installed version (`0.32.0+cpu`)."""
    if settings.engine_device:
        return settings.engine_device
    return "cpu" if vllm_version and vllm_version.partition("+")[2].startswith("cpu") else "cuda"


def gpus_to_use(settings: Settings, inventory: GpuInventory) -> tuple[Gpu, ...]:
    """The GPUs that were given and asked for; none when none was asked for or none is there.

    In a container only the given GPUs are visible, with numbers of their own; so a list that names as many as there
    are means all of them. Raises `gpu-lost` and `gpu-spec-invalid`.
    """
    if settings.gpus == "none" or not inventory.gpus:
        return ()
    asked = settings.gpus.removeprefix("device=").split(",")
    everything = settings.gpus == "all" or ("," in settings.gpus and len(asked) == len(inventory.gpus))
    chosen = inventory.gpus if everything else select(inventory, _as_devices(settings.gpus))
    if lost := [g for g in chosen if g.error]:
        raise NimctlError(
            "gpu-lost",
            f"GPU {', '.join(str(g.index) for g in lost)} does not answer",
            cause=str(lost[0].error),
            fix="Leave it out (--gpus device=...), or reset it or reboot the host.",
        )
    return chosen


def _as_devices(spec: str) -> str:
    """`NIM_GPUS` lists devices; a lone number is an index, never docker's count."""
    return spec if spec.startswith("device=") else f"device={spec}"


def over_nodes(cluster: Cluster, role: Role) -> Cluster:
    """The GPUs of the whole group: those of this node, on every node."""
    return cluster if role.alone else replace(cluster, nodes=role.nodes, together=True)


def require_device(settings: Settings, model: Model, device: Device, inventory: GpuInventory, cluster: Cluster) -> None:
    """Never run on the CPU in silence. Raises `gpu-missing`; what is wrong with GPUs that are there is told later."""
    wanted_none = settings.gpus == "none"
    if cluster.slots or cluster.left or (device == "cpu" and (model.recipe.cpu or wanted_none)):
        return
    raise NimctlError(
        "gpu-missing",
        f"{model.recipe.name} needs GPUs and none is visible" if not wanted_none else "this engine needs a GPU",
        cause="NIM_GPUS=none" if wanted_none else inventory.detail or f"NVML: {inventory.state}, no GPU listed",
        fix="Start with --gpus all on a host where `nimctl doctor` passes; the demo also runs on the CPU image.",
    )


def decide_layout(model: Model, cluster: Cluster, request: Request) -> Decision:
    """The layout for what was asked and what is there. Raises `no-layout`, `gpus-mixed`, `usage`."""
    recipe = replace(model.recipe, weights_bytes=model.weights_bytes or model.recipe.weights_bytes)
    return decide_for(recipe, cluster, request, seen=model.looked_into or model.weights == recipe.weights)

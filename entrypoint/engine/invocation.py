"""The engine's command line. Pure: what is asked, where things are, and nothing else, decides it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine import drafts, layers
from entrypoint.engine.model import Device, Model
from entrypoint.settings import Settings
from entrypoint.state import State
from nimctl.core.engine_options import Layer, Option, Resolved, merge, options_of, resolve
from nimctl.core.engine_variables import NO_DRAFTS
from nimctl.core.layout import Layout
from nimctl.core.parallel import Sizes
from nimctl.core.planning.deciding import Request

_NAMES = "served-model-name"


def request(settings: Settings, runtime: Sequence[Option] = ()) -> Request:
    """What was asked of the layout, by variables and by engine arguments, which win.

    `runtime` is what the weights bring (`Model.runtime`). Raises `usage`, and `config-invalid` for what is not theirs.
    """
    asked = merge(*(layer.options for layer in layers.with_runtime(layers.of_user(settings), runtime)))
    drafts.named(asked)  # says in its own words what it cannot read
    sizes = Sizes(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    return Request(asked, sizes, profile=settings.model_profile)


def user_options(settings: Settings) -> tuple[Option, ...]:
    """The engine options that the user asks for. Raises `usage` for those that are not theirs to give."""
    return merge(*(layer.options for layer in layers.of_user(settings)))


def draft_of(settings: Settings, model: Model, device: Device) -> drafts.Draft | None:
    """The draft model that the engine will be told to use, with weights of its own. Raises `usage`."""
    return drafts.named(merge(options_of(model.recipe.engine.on(device).args), model.runtime, user_options(settings)))


@dataclass(frozen=True)
class Command:
    """How the engine is started: its words, the names it will serve, and each option with where it comes from."""

    argv: tuple[str, ...]
    served_names: tuple[str, ...]
    options: tuple[Resolved, ...] = ()


def build_command(
    settings: Settings,
    model: Model,
    device: Device,
    layout: Layout,
    *,
    snapshot: str,
    state: State,
    draft: str | None = None,
    adapters: Sequence[Option] = (),
) -> Command:
    """`vllm serve` for this model on this layout; `draft` is where its draft model lies.

    `adapters` are the options for the LoRA adapters that were found. Raises `usage`, and `config-invalid` for options
    that weights may not decide.
    """
    user = layers.of_user(settings)
    passed = merge(model.runtime, *(layer.options for layer in user))
    below, given = layers.of_model(
        settings,
        model.recipe,
        options_of(model.recipe.engine.on(device).args),
        layout,
        passed,
        sees=model.sees_images,
        derived=device == "cuda",
    )
    naming = Option(_NAMES, (f"--{_NAMES}", *model.served_names))
    named = settings.sources["NIM_SERVED_MODEL_NAME"] == "environment"
    names = Layer("NIM_SERVED_MODEL_NAME" if named else layers.PROFILE, (naming,))
    found = resolve(
        (
            *below,
            *layers.with_runtime((names, *given, Layer("NIM_PEFT_SOURCE", tuple(adapters)), *user), model.runtime),
        )
    )
    resolved = tuple(one for one in found if one.option.name != NO_DRAFTS)
    options: Sequence[Option] = [one.option for one in resolved]
    if draft is not None:
        options = drafts.replaced(options, draft)
    served = next(o.values for o in options if o.name == _NAMES)
    words = [word for option in options for word in option.words]
    argv = (*executable(settings), "serve", snapshot, "--uds", str(state.engine_socket), *words)
    return Command(argv, served, resolved)


def executable(settings: Settings) -> tuple[str, ...]:
    """The engine to run: the one that was named, the one installed beside this Python, or its module."""
    if settings.engine_executable:
        return (settings.engine_executable,)
    beside = Path(sys.executable).with_name("vllm")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "vllm.entrypoints.cli.main")

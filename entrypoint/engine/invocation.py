"""The engine's command line. Pure: what is asked, where things are, and nothing else, decides it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine import drafts
from entrypoint.engine.model import Device, Model
from entrypoint.settings import Settings
from entrypoint.state import State
from nimctl.core.engine_options import Option, merge, options_of, parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.layout import Layout
from nimctl.core.parallel import Sizes
from nimctl.core.planning.deciding import Request

MIDDLEWARE = "entrypoint.api.RequestRules"

# With these the user says how many replicas there are, and where.
_SPREAD = frozenset(
    {"data-parallel-size", "data-parallel-size-local", "data-parallel-rank", "data-parallel-start-rank"}
)
# The front owns the network side of the server; the engine must stay where only the front reaches it.
_OURS = {
    "uds": "the engine is always behind the front",
    "host": "set NIM_SERVER_HOST instead",
    "port": "set NIM_SERVER_PORT instead",
    "grpc": "only the HTTP API is served",
    "headless": "a server without API cannot become ready",
    "api-key": "the front has no authentication of this kind",
    "ssl-keyfile": "the engine is on a Unix socket",
    "ssl-certfile": "the engine is on a Unix socket",
    "root-path": "the front decides the paths",
}


def request(settings: Settings) -> Request:
    """What was asked of the layout, by variables and by engine arguments, which win. Raises `usage`."""
    drafts.named(user_options(settings))  # says in its own words what it cannot read
    length = options_of({"max-model-len": settings.max_model_len} if settings.max_model_len else {})
    sizes = Sizes(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    return Request(merge(length, user_options(settings)), sizes, profile=settings.model_profile)


def user_options(settings: Settings) -> tuple[Option, ...]:
    """The engine options that the user passed. Raises `usage` for those that are not theirs to give."""
    options = parse_options(settings.engine_args)
    for option in options:
        if why := _OURS.get(option.name):
            raise NimctlError(
                "usage", f"--{option.name} cannot be passed to the engine", cause=why, fix=f"Leave --{option.name} out."
            )
    return options


def draft_of(settings: Settings, model: Model, device: Device) -> drafts.Draft | None:
    """The draft model that the engine will be told to use, with weights of its own. Raises `usage`."""
    return drafts.named(merge(options_of(model.recipe.engine.on(device).args), user_options(settings)))


@dataclass(frozen=True)
class Command:
    """How the engine is started: its words, the names it will serve, and its working folder."""

    argv: tuple[str, ...]
    served_names: tuple[str, ...]


def build_command(
    settings: Settings,
    model: Model,
    device: Device,
    layout: Layout,
    *,
    snapshot: str,
    state: State,
    draft: str | None = None,
) -> Command:
    """`vllm serve` for this model on this layout; `draft` is where its draft model lies. Raises `usage`."""
    own: dict[str, str | int | float | bool] = {
        "served-model-name": "",
        "tensor-parallel-size": layout.tensor_parallel_size,
        "shutdown-timeout": settings.drain_seconds,
        "middleware": MIDDLEWARE,
    }
    passed = user_options(settings)
    recipe = model.recipe
    recipes_own = options_of(recipe.engine.on(device).args)
    own |= _beyond_tensor(layout, recipes_own, passed)
    if device == "cuda":
        own |= layout.arguments
    if model.sees_images:
        limits = {**recipe.limits, recipe.image_limit_key: settings.max_images}
        own["limit-mm-per-prompt"] = json.dumps(limits, separators=(",", ":"))
    if settings.max_model_len:
        own["max-model-len"] = settings.max_model_len
    options = merge(
        recipes_own,
        (
            Option("served-model-name", ("--served-model-name", *model.served_names))
            if name == "served-model-name"
            else option
            for name, option in zip(own, options_of(own), strict=True)
        ),
        passed,
    )
    if draft is not None:
        options = drafts.replaced(options, draft)
    names = next(o.values for o in options if o.name == "served-model-name")
    words = [word for option in options for word in option.words]
    return Command((*executable(settings), "serve", snapshot, "--uds", str(state.engine_socket), *words), names)


def _beyond_tensor(
    layout: Layout, recipes_own: Sequence[Option], passed: Sequence[Option]
) -> dict[str, str | int | float | bool]:
    """What a layout is beside its tensor ranks; replicas over several machines are the user's to describe.

    A layout goes before the recipe's own options: a profile may be one without what they say.
    """
    sizes = {
        "pipeline-parallel-size": layout.pipeline_parallel_size,
        "data-parallel-size": layout.data_parallel_size,
        "decode-context-parallel-size": layout.decode_context_parallel_size,
    }
    if any(option.name in _SPREAD for option in passed):
        del sizes["data-parallel-size"]
    own: dict[str, str | int | float | bool] = {name: size for name, size in sizes.items() if size > 1}
    if layout.expert or any(option.name == "enable-expert-parallel" for option in recipes_own):
        own["enable-expert-parallel"] = layout.expert
    return own


def executable(settings: Settings) -> tuple[str, ...]:
    """The engine to run: the one that was named, the one installed beside this Python, or its module."""
    if settings.engine_executable:
        return (settings.engine_executable,)
    beside = Path(sys.executable).with_name("vllm")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "vllm.entrypoints.cli.main")

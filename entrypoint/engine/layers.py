"""Where the engine's options come from, lowest layer first. Pure.

    default < derived < profile < runtime_config.json < NIM_* < NIM_PASSTHROUGH_ARGS < command line

As NIM has it: https://docs.nvidia.com/nim/large-language-models/2.1.4/reference/advanced-configuration.html
"""

from collections.abc import Mapping, Sequence

from entrypoint.settings import Settings
from entrypoint.weights import runtime_config
from nimctl.core import recipes
from nimctl.core.engine_options import Layer, Option, Value, merge, options_of, parse_options
from nimctl.core.engine_variables import DRAFTS, asked_of_engine
from nimctl.core.errors import NimctlError
from nimctl.core.layout import Layout
from nimctl.core.recipes import Recipe

DEFAULT, DERIVED, PROFILE, RUNTIME, PASSTHROUGH, COMMAND_LINE = (
    "default",
    "derived",
    "profile",
    runtime_config.NAME,
    "NIM_PASSTHROUGH_ARGS",
    "command line",
)
MIDDLEWARE = "entrypoint.api.RequestRules"
_LIMITS = "limit-mm-per-prompt"

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
    "api-key": "set NIM_API_KEYS_FILE instead",
    "ssl-keyfile": "set NIM_SSL_KEY_PATH instead",
    "ssl-certfile": "set NIM_SSL_CERTS_PATH instead",
    "ssl-ca-certs": "set NIM_SSL_CA_CERTS_PATH instead",
    "root-path": "the front decides the paths",
}


def of_user(settings: Settings) -> tuple[Layer, ...]:
    """What was asked of the container, and nothing that only a model can tell. Raises `usage`."""
    own: list[tuple[str, Mapping[str, Value]]] = []
    if settings.max_model_len:
        own.append(("NIM_MAX_MODEL_LEN", {"max-model-len": settings.max_model_len}))
    if settings.log_requests:
        own.append(("NIM_DISABLE_LOG_REQUESTS", {"enable-log-requests": True}))
    if settings.otel and settings.otel_endpoint and settings.otel_exporter != "none":
        own.append(("NIM_OTEL_EXPORTER_OTLP_ENDPOINT", {"otlp-traces-endpoint": settings.otel_endpoint}))
    return (
        *(Layer(name, options_of(args)) for name, args in own),
        *(Layer(name, (option,)) for name, option in asked_of_engine(settings.engine_values, _drafts(settings))),
        Layer(PASSTHROUGH, _passed(settings.passthrough_args)),
        Layer(COMMAND_LINE, _passed(settings.command_line_args)),
    )


def _drafts(settings: Settings) -> tuple[dict[str, object], ...]:
    """The recipe's ways of drafting as the engine's settings, needed only where a variable asks for some."""
    if not settings.recipe or not any(v.name in settings.engine_values for v in DRAFTS):
        return ()
    return tuple(draft.settings for draft in recipes.load(settings.recipe).drafts)


def _passed(words: Sequence[str]) -> tuple[Option, ...]:
    options = parse_options(words)
    for option in options:
        if why := _OURS.get(option.name):
            raise NimctlError(
                "usage", f"--{option.name} cannot be passed to the engine", cause=why, fix=f"Leave --{option.name} out."
            )
    return options


def with_runtime(user: Sequence[Layer], runtime: Sequence[Option]) -> tuple[Layer, ...]:
    """`user` above what the weights bring. Raises `config-invalid` for what is not theirs to give."""
    if not runtime:
        return tuple(user)
    repeated = [option.name.removeprefix("no-") for layer in user for option in layer.options]
    runtime_config.require_theirs(runtime, repeated)
    return (Layer(RUNTIME, tuple(runtime)), *user)


def of_model(
    settings: Settings,
    recipe: Recipe,
    recipes_own: Sequence[Option],
    layout: Layout,
    passed: Sequence[Option],
    *,
    sees: bool,
    derived: bool,
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers below what was asked, and the variables that only a model gives a meaning to.

    `passed` are the options of the layers above. With `derived`, what the layout says of memory counts.
    """
    arguments = layout.arguments if derived else {}
    # A value of the recipe that the plan found not to fit gives way; all others were planned with.
    kept = tuple(option for option in recipes_own if option.name not in arguments)
    own: dict[str, Value] = {"tensor-parallel-size": layout.tensor_parallel_size}
    own |= _beyond_tensor(layout, recipes_own, passed)
    images: dict[str, Value] = {_LIMITS: {recipe.image_limit_key: settings.max_images}}
    defaults: dict[str, Value] = {"shutdown-timeout": settings.drain_seconds, "middleware": MIDDLEWARE}
    others = {key: value for key, value in recipe.limits.items() if key != recipe.image_limit_key}
    layers = (
        Layer(DEFAULT, options_of({**defaults, **(images if sees else {})})),
        Layer(DERIVED, options_of(dict(arguments))),
        Layer(PROFILE, merge(kept, options_of({_LIMITS: others} if sees and others else {}))),
        Layer(PROFILE, options_of(own)),
    )
    given: dict[str, tuple[Mapping[str, Value], bool]] = {
        "NIM_TENSOR_PARALLEL_SIZE": ({"tensor-parallel-size": settings.tensor_parallel_size or 1}, True),
        "NIM_PIPELINE_PARALLEL_SIZE": ({"pipeline-parallel-size": settings.pipeline_parallel_size or 1}, True),
        "NIM_DRAIN_SECONDS": ({"shutdown-timeout": settings.drain_seconds}, True),
        "NIM_MAX_IMAGES_PER_PROMPT": (images, sees),
        "NIM_MAX_VIDEOS_PER_PROMPT": ({_LIMITS: {"video": settings.max_videos or 0}}, sees),
    }
    asked = tuple(
        Layer(name, options_of(args))
        for name, (args, counts) in given.items()
        if counts and settings.sources[name] == "environment"
    )
    return layers, asked


def _beyond_tensor(layout: Layout, recipes_own: Sequence[Option], passed: Sequence[Option]) -> dict[str, Value]:
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
    own: dict[str, Value] = {name: size for name, size in sizes.items() if size > 1}
    if layout.expert or any(option.name == "enable-expert-parallel" for option in recipes_own):
        own["enable-expert-parallel"] = layout.expert
    return own

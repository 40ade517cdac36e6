"""What `-h` prints: the actions, the variables that people set, and where the rest is told."""

from collections.abc import Mapping, Sequence

from entrypoint.settings import ACTIONS, DOWNLOAD, LIST_PROFILES, MANIFEST, VARIABLES

_SERVE = ACTIONS[0]
_ACTIONS = {
    _SERVE: "Serve a model: what happens without an action.",
    DOWNLOAD: "Bring a model's weights into the cache, and serve nothing.",
    LIST_PROFILES: "Print the model's profiles, by what these GPUs can do with them.",
    MANIFEST: "Print the model's profiles as a manifest, the same on every host.",
}
_MAIN = (
    "NIM_RECIPE",
    "NIM_MODEL_PATH",
    "NIM_MODEL_PROFILE",
    "NIM_CACHE_PATH",
    "NIM_SERVER_PORT",
    "NIM_GPUS",
    "NIM_MAX_MODEL_LEN",
    "NIM_PASSTHROUGH_ARGS",
    "NIM_LOG_LEVEL",
)
_KEYS = "HF_TOKEN, NGC_API_KEY and their *_FILE open models that need a key; HF_HUB_OFFLINE=1 uses no network."


def is_wanted(arguments: Sequence[str]) -> bool:
    """Whether help is the first thing that is asked for; behind a model or other options it is the engine's word."""
    rest = [word for word in arguments if word != "--dry-run"]
    first = rest[1:2] if rest[:1] == [_SERVE] else rest[:1]
    return first in (["-h"], ["--help"])


def text() -> str:
    """The help, ready to print."""
    variables = {variable.name: variable for variable in VARIABLES}
    defaults = {name: variables[name].default for name in _MAIN}
    shown = {name: f"{variables[name].help}{f' [{default}]' if default else ''}" for name, default in defaults.items()}
    return "\n".join(
        (
            f"usage: [{_SERVE}] [--dry-run] [MODEL] [ENGINE OPTION ...]",
            *(f"       {action} [-h]" for action in _ACTIONS if action != _SERVE),
            "",
            "MODEL is an absolute path or a source URI (hf://org/name, ngc://, s3://, gs://, https://, builtin://demo).",
            "Everything else goes to the engine; --dry-run prints settings and command as JSON and starts nothing.",
            "",
            "actions:",
            *_columns(_ACTIONS),
            "",
            "main variables [default]; --dry-run prints them all:",
            *_columns(shown),
            "",
            _KEYS,
        )
    )


def _columns(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"  {name:{width}}  {told}" for name, told in rows.items()]

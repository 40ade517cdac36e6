"""What `-h` prints: the actions, the variables that people set, and where the rest is told."""

from collections.abc import Mapping, Sequence

from entrypoint.actions.table import SERVE, SERVE_RAY, TABLE
from entrypoint.settings import VARIABLES

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
    first = rest[1:2] if rest[:1] in ([SERVE], [SERVE_RAY]) else rest[:1]
    return first in (["-h"], ["--help"])


def text() -> str:
    """The help, ready to print."""
    variables = {variable.name: variable for variable in VARIABLES}
    defaults = {name: variables[name].default for name in _MAIN}
    shown = {name: f"{variables[name].help}{f' [{default}]' if default else ''}" for name, default in defaults.items()}
    return "\n".join(
        (
            f"usage: [{SERVE}] [--dry-run] [MODEL] [ENGINE OPTION ...]",
            *(f"       {action.name} [-h]" for action in TABLE if action.place),
            "",
            "MODEL is an absolute path or a source URI (hf://org/name, ngc://, s3://, gs://, https://, builtin://demo).",
            "Everything else goes to the engine; --dry-run prints settings and command as JSON and starts nothing.",
            "",
            "actions:",
            *_columns({action.name: action.help for action in TABLE}),
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

"""The container's settings: one table of variables, read once, each value with the place it came from."""

from entrypoint.settings.reading import explain, read, state_dir, wants_json_lines
from entrypoint.settings.values import Settings, Source
from entrypoint.settings.variables import ACCESS, ACCESS_FAMILIES, LEVELS, VARIABLES
from nimctl.core.variables import Variable

__all__ = [
    "ACCESS",
    "ACCESS_FAMILIES",
    "LEVELS",
    "VARIABLES",
    "Settings",
    "Source",
    "Variable",
    "explain",
    "read",
    "state_dir",
    "wants_json_lines",
]

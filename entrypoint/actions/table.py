"""The actions of the container, one row each: what `-h` prints, what the image's commands are called, who does it.

Read before anything else of a start, so it imports nothing: a row names the module that does the work, which is
imported when the action was asked for. Names as NIM has them:
https://docs.nvidia.com/nim/large-language-models/2.0.9/reference/cli-reference.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from entrypoint.observability.journal import Journal

SERVE = "nim-serve"
# NIM's way to serve on several nodes; ours needs no Ray, and learns from its variables which node it is.
SERVE_RAY = "nim-serve-ray"
DOWNLOAD = "download-to-cache"
WORKSPACE = "download-model"
STORE = "create-model-store"
MIRROR = "mirror"
LIST_PROFILES = "list-model-profiles"
MANIFEST = "model-manifest"


class Act(Protocol):
    """What an action does with the environment and the words behind its name; it returns the exit code."""

    def __call__(self, environ: Mapping[str, str], arguments: Sequence[str], output: "Journal", /) -> int:
        """Do it, and tell `output`. Raises NimctlError."""


@dataclass(frozen=True)
class Action:
    """One action: `place` is the function that does it (`module:function`), empty for the server itself.

    `aliases` are the names of other NIM families; `speaks_json`: it has `--json`, whose last line may be an error.
    """

    name: str
    help: str
    place: str = ""
    aliases: tuple[str, ...] = ()
    speaks_json: bool = False

    def load(self) -> Act:
        """The function that does it, imported now."""
        module, _, function = self.place.partition(":")
        act: Act = getattr(import_module(f"entrypoint.actions.{module}"), function)
        return act


TABLE = (
    Action(SERVE, "Serve a model: what happens without an action.", aliases=(SERVE_RAY,)),
    Action(
        DOWNLOAD,
        "Bring a model's weights into the cache, and serve nothing.",
        "download:main",
        ("nim_download_to_cache",),
        speaks_json=True,
    ),
    Action(
        WORKSPACE,
        "Bring a model, and lay its files out in a folder of links into the cache.",
        "workspace:download_model",
        speaks_json=True,
    ),
    Action(
        STORE,
        "Copy a model out of the cache into a plain folder, for a host without network.",
        "workspace:create_store",
        ("nim_create_model_store",),
        speaks_json=True,
    ),
    Action(
        MIRROR,
        "Copy a model from the cache to S3 or GCS, where NIM_REPOSITORY_OVERRIDE finds it.",
        "mirror:main",
        speaks_json=True,
    ),
    Action(
        LIST_PROFILES,
        "Print the model's profiles, by what these GPUs can do with them.",
        "profiles:list_profiles",
        ("nim_list_model_profiles",),
    ),
    Action(MANIFEST, "Print the model's profiles as a manifest, the same on every host.", "profiles:print_manifest"),
)
NAMES = tuple(action.name for action in TABLE)


def find(word: str) -> Action | None:
    """The action that `word` names, None where it names none."""
    return next((action for action in TABLE if word == action.name or word in action.aliases), None)


def asked(arguments: Sequence[str]) -> Action | None:
    """The action, other than to serve, that the command line begins with."""
    found = find(arguments[0]) if arguments else None
    return found if found is not None and found.place else None

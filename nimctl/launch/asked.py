"""Reading and checking what was asked for, before anything is planned. Pure."""

import ipaddress
import re
import shlex
from itertools import dropwhile
from pathlib import Path

from nimctl.core import recipes
from nimctl.core.engine_options import merge, options_of, parse_options
from nimctl.core.engine_variables import asked_of_engine, values_of
from nimctl.core.errors import NimctlError
from nimctl.core.parallel import Sizes, size_of
from nimctl.core.planning.deciding import Request
from nimctl.core.planning.profile import identity_of
from nimctl.core.recipes import Recipe
from nimctl.core.secret import KEY_VARIABLES, Secret, is_secret_name, redact
from nimctl.core.stages import DRAIN_SECONDS
from nimctl.launch.model import RunOptions

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_FLAGS = frozenset({"--api-key", "--hf-token"})


def check(options: RunOptions) -> None:
    """Refuse (`usage`) names, ports, variables, arguments and folders that cannot work or would expose a key."""
    if not _NAME.fullmatch(options.name):
        raise usage(
            f"{options.name!r} cannot be the name of a run",
            "docker takes two or more of a-z, A-Z, 0-9, _ . - and a letter or digit first",
            "Choose another --name.",
        )
    if not 1 <= options.port <= 65535:
        raise usage(f"port {options.port} does not exist", "ports go from 1 to 65535", "Choose another --port.")
    for name, _ in options.env:
        if not _VARIABLE.fullmatch(name):
            raise usage(f"{name!r} is no variable name", "--env takes NAME=VALUE", "Correct the name.")
        if name in KEY_VARIABLES:
            raise usage(
                f"{name} was given with --env",
                "a key on the command line can be read by every user of this host",
                f"Export {name} in the shell instead; nimctl hands it over by itself.",
            )
    for argument in options.engine_args:
        if argument.split("=", 1)[0].replace("_", "-") in _KEY_FLAGS or redact(argument) != argument:
            raise usage(
                "an engine argument holds a key",
                "arguments of a container can be read in `ps` and `docker inspect`",
                "Put the key into a file or a variable of the shell, not into an argument.",
            )
    for path in (str(options.cache), weights_of(options) or "/", str(secrets_folder(options))):
        if "://" not in path and (not path.startswith("/") or (options.runtime == "docker" and ":" in path)):
            raise usage(
                f"the folder {path} cannot be mounted",
                "it must be an absolute path without a colon",
                "Give another folder, or a link to it.",
            )


def usage(message: str, cause: str, fix: str) -> NimctlError:
    """A `usage` error."""
    return NimctlError("usage", message, cause=cause, fix=fix)


def host_ip(host: str) -> str:
    """The address to publish on, as docker takes it. Raises `usage` for a name other than localhost."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise usage(
            f"{host!r} is not an address to publish on",
            "docker publishes on IP addresses, not on names",
            "Use 127.0.0.1 for this host only, 0.0.0.0 for every interface, or one interface's address.",
        ) from None


def asked_gpus(options: RunOptions) -> str | None:
    """What the user asked `--gpus` for; None when the value is only a default."""
    return None if options.origins.get("gpus") == "default" else options.gpus


def request_of(options: RunOptions) -> Request:
    """What the engine arguments and variables ask of the layout, as our container will read them.

    Raises `usage`, and `config-invalid` for a variable.
    """
    env = dict(options.env)

    def variable(name: str) -> int | None:
        return size_of(env[name], f"{name}={env[name]}") if env.get(name) else None

    try:
        passed = shlex.split(env.get("NIM_PASSTHROUGH_ARGS", ""))
    except ValueError as error:
        raise usage("NIM_PASSTHROUGH_ARGS cannot be read", str(error), "Quote it as in a shell.") from None
    words = dropwhile(lambda word: not word.startswith("-"), options.engine_args)  # an action, a model
    length = env.get("NIM_MAX_MODEL_LEN", "")
    if length and not (length.isascii() and length.isdecimal() and int(length[:20]) > 0):
        raise usage(f"NIM_MAX_MODEL_LEN={length[:40]} is no length", "a number of tokens is expected", "Correct it.")
    variables = Sizes(variable("NIM_TENSOR_PARALLEL_SIZE"), variable("NIM_PIPELINE_PARALLEL_SIZE"))
    own = options_of({"max-model-len": length} if length else {})
    drafts = tuple(draft.settings for draft in options.recipe.drafts) if options.recipe else ()
    named = (option for _, option in asked_of_engine(values_of(env), drafts))
    # each argument of its own layer, as the container has them: single keys of an object go over those below
    layers = (own, named, parse_options(passed), parse_options(tuple(words)))
    return Request(merge(*layers), variables, profile=env.get("NIM_MODEL_PROFILE") or None)


def weights_of(options: RunOptions) -> str | None:
    """The folder (absolute) or URI that the server must be told about; None when its own recipe names the weights."""
    path = options.model_path
    if path is None and options.recipe and options.recipe.runs == "ours" and not _is_default(options.recipe):
        path = options.recipe.weights
    return path.removeprefix("file://") if path else None


def in_library(recipe: Recipe) -> bool:
    """Whether the container can find this recipe by name, because it is one of those that come with nimctl."""
    if recipe.name not in recipes.names():
        return False
    known = recipes.load(recipe.name)
    place = identity_of(recipe.weights) or recipe.weights  # a revision in the address names the same checkpoint
    return place in [identity_of(w) or w for w in (known.weights, *(variant.weights for variant in known.variants))]


def _is_default(recipe: Recipe) -> bool:
    """Whether the recipe's name alone tells the container which weights are meant."""
    return recipe.name in recipes.names() and recipes.load(recipe.name).weights == recipe.weights


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable's name or the shape of its value says that it is a key."""
    return is_secret_name(name) or redact(value) != value


def guarded(name: str, value: str) -> str | Secret:
    """The value of a variable, wrapped where it is a key."""
    return Secret(value) if looks_secret(name, value) else value


def drain_seconds(options: RunOptions) -> int:
    """How long the server may drain; the container's stop timeout must not be shorter."""
    given = dict(options.env).get("NIM_DRAIN_SECONDS", "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) < 6 else DRAIN_SECONDS


def secrets_folder(options: RunOptions) -> Path:
    """The folder of this run's key files on the host."""
    return (options.secrets_dir or Path(f"/dev/shm/nimctl-{options.uid}")) / options.name  # noqa: S108 (checked when made)

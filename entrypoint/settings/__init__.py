"""The container's settings: one table of variables, read once, each value with the place it came from.

This table is the contract between the image and whoever starts it (`docker run -e`, nimctl, an operator). The names
follow NVIDIA's where NVIDIA has one: https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from nimctl.core.errors import NimctlError
from nimctl.core.secret import KEY_VARIABLES, Secret, is_secret_name
from nimctl.core.stages import DRAIN_SECONDS

Source = Literal["command line", "environment", "default"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DOWNLOAD = "download-to-cache"
LIST_PROFILES = "list-model-profiles"
MANIFEST = "model-manifest"
ACTIONS = ("nim-serve", DOWNLOAD, LIST_PROFILES, MANIFEST)
# Addresses that may have a password in them.
_ADDRESSES = (
    "NIM_MODEL_PATH",
    "NIM_REPOSITORY_OVERRIDE",
    "HF_ENDPOINT",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
)
_PASSWORDS = re.compile(r"://[^/@\s\"']*:([^/@\s\"']+)@")
_SECRET_FILES = tuple(f"{name}_FILE" for name in KEY_VARIABLES)


@dataclass(frozen=True)
class Settings:
    """Everything that was asked of this container. Times in seconds; None means: not asked, decide from the recipe.

    `sources` tells for each variable where its value came from; `unknown` names `NIM_*` variables that mean nothing
    here; `access` tells which keys and ways to the sources are set; `engine_args` are arguments for the engine, lowest
    precedence first; `secrets` are only there to be masked.
    """

    cache_path: Path
    port: int
    host: str
    recipe: str | None
    model_path: str | None
    model_profile: str | None
    served_names: tuple[str, ...]
    max_images: int
    max_model_len: int | None
    tensor_parallel_size: int | None
    pipeline_parallel_size: int | None
    passthrough_args: tuple[str, ...]
    allowed_media_domains: tuple[str, ...]
    log_level: str
    cache_probe_timeout: float
    drain_seconds: int
    stall_seconds: float
    gpus: str
    engine_executable: str | None
    engine_device: Literal["cuda", "cpu"] | None
    state_dir: Path
    command_line_args: tuple[str, ...] = ()
    dry_run: bool = False
    secrets: tuple[Secret, ...] = ()
    sources: Mapping[str, Source] = None  # type: ignore[assignment]  # always given by read()
    access: Mapping[str, bool] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def engine_args(self) -> tuple[str, ...]:
        """What the user passes to the engine: `NIM_PASSTHROUGH_ARGS`, then the command line, which wins."""
        return self.passthrough_args + self.command_line_args


@dataclass(frozen=True)
class Variable:
    """One variable: the field it fills, how its text is read (ValueError when it cannot be), and its default text."""

    name: str
    field: str
    read: Callable[[str], Any]
    default: str | None
    help: str


def _text(value: str) -> str:
    return value


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for word in value.replace(",", " ").split() if word)


def _count(lowest: int, highest: int = 2**31) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isdecimal() or not lowest <= int(value) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest} is expected")
        return int(value)

    return read


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 < seconds < 1e6:
        raise ValueError("a number of seconds above 0 is expected")
    return seconds


def _one_of(*allowed: str, fold: Callable[[str], str] = str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if fold(value) not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is expected")
        return fold(value)

    return read


def _folder(value: str) -> Path:
    # These paths are written into nginx's configuration, which has no way to quote every character.
    if not value.startswith("/") or set(value) & set("\"'\\$;{}\n\r"):
        raise ValueError("an absolute path without quotes, $, ;, braces and line breaks is expected")
    return Path(value)


def _host(value: str) -> str:
    if not value or set(value) - set("0123456789abcdefABCDEF.:"):
        raise ValueError("an IPv4 or IPv6 address is expected")
    return value


def _arguments(value: str) -> tuple[str, ...]:
    return tuple(shlex.split(value))


VARIABLES: tuple[Variable, ...] = (
    Variable("NIM_RECIPE", "recipe", _text, None, "The recipe to serve; needed unless NIM_MODEL_PATH is set."),
    Variable("NIM_MODEL_PATH", "model_path", _text, None, "Where the weights are: a folder or a source URI."),
    Variable("NIM_MODEL_PROFILE", "model_profile", _text, None, "Id or name of the profile; default: by the GPUs."),
    Variable("NIM_SERVED_MODEL_NAME", "served_names", _words, "", "Model names in the API; default: the recipe's."),
    Variable("NIM_CACHE_PATH", "cache_path", _folder, "/opt/nim/.cache", "The cache folder, mounted from the host."),
    Variable("NIM_SERVER_PORT", "port", _count(1, 65535), "8000", "The public port."),
    Variable("NIM_SERVER_HOST", "host", _host, "0.0.0.0", "The address that is listened on."),  # noqa: S104 (the container's)
    Variable("NIM_GPUS", "gpus", _text, "all", "Which visible GPUs to use: `all`, `none`, indices or UUIDs."),
    Variable("NIM_TENSOR_PARALLEL_SIZE", "tensor_parallel_size", _count(1, 1024), None, "Tensor-parallel size."),
    Variable("NIM_PIPELINE_PARALLEL_SIZE", "pipeline_parallel_size", _count(1, 1024), None, "Pipeline-parallel size."),
    Variable("NIM_MAX_MODEL_LEN", "max_model_len", _count(1), None, "Context length in tokens; default: the model's."),
    Variable("NIM_MAX_IMAGES_PER_PROMPT", "max_images", _count(0, 10000), "4", "How many images a request may hold."),
    Variable("NIM_ALLOWED_MEDIA_DOMAINS", "allowed_media_domains", _words, "", "Hosts of image URLs; empty: any."),
    Variable("NIM_PASSTHROUGH_ARGS", "passthrough_args", _arguments, "", "More engine arguments, as in a shell."),
    Variable("NIM_LOG_LEVEL", "log_level", _one_of(*LEVELS, fold=str.upper), "INFO", "Least level that is logged."),
    Variable("NIM_CACHE_PROBE_TIMEOUT", "cache_probe_timeout", _seconds, "60", "Seconds for the cache to answer."),
    Variable("NIM_DRAIN_SECONDS", "drain_seconds", _count(0, 86400), str(DRAIN_SECONDS), "Seconds after SIGTERM."),
    Variable("NIM_ENGINE_STALL_SECONDS", "stall_seconds", _seconds, "600", "Seconds that a start may stand still."),
    Variable("NIM_ENGINE_EXECUTABLE", "engine_executable", _text, None, "Another `vllm` than the installed one."),
    Variable("NIMCTL_ENGINE_DEVICE", "engine_device", _one_of("cuda", "cpu"), None, "Set by the image."),
    Variable("NIMCTL_STATE_DIR", "state_dir", _folder, "/tmp/nimctl", "Sockets and reports."),  # noqa: S108 (owner checked)
)

# Keys and ways to the sources of weights. `nimctl.core.fetch.from_environment` reads them when the weights are fetched,
# key files included, and nothing else ever does: of these, only whether they are set is told.
ACCESS: Mapping[str, str] = {
    "HF_TOKEN": "The key for hf:// sources, where they need one; or HF_TOKEN_FILE, the path of a file that holds it.",
    "HF_TOKEN_FILE": "The file of that key, read when the weights are fetched.",
    "HF_ENDPOINT": "The Hub, or a mirror of it; default: https://huggingface.co.",
    "HF_HUB_OFFLINE": "1: use no network; what the cache holds must be enough.",
    "NGC_API_KEY": "The key for ngc:// sources, where they need one; NGC_CLI_API_KEY comes before it.",
    "NGC_CLI_API_KEY": "The same key under the name that NVIDIA's command line uses.",
    "NGC_API_KEY_FILE": "The file of that key, read when the weights are fetched.",
    "NGC_API_ENDPOINT": "NGC's API; default: https://api.ngc.nvidia.com.",
    "NGC_AUTH_ENDPOINT": "NGC's key exchange; default: https://authn.nvidia.com.",
    "NIM_REPOSITORY_OVERRIDE": "The mirror that takes the place of every remote source.",
}
# Families of the same kind: whatever an object store's own library reads.
ACCESS_FAMILIES = {"AWS_": "Access to s3:// sources.", "GOOGLE_": "Access to gs:// sources."}


def read(environ: Mapping[str, str], arguments: Sequence[str] = ()) -> Settings:
    """The settings in `environ` and on the command line (without the program's name).

    An empty variable counts as not set. Raises `config-invalid` naming the variable, `usage` for the command line.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for variable in VARIABLES:
        given = environ.get(variable.name) or None
        sources[variable.name] = "default" if given is None else "environment"
        text = variable.default if given is None else given
        values[variable.field] = None if text is None else _value(variable, text)
    dry_run, positional, engine_args = _command_line(arguments)
    if positional:
        values["model_path"], sources["NIM_MODEL_PATH"] = positional, "command line"
    if not values["recipe"] and not values["model_path"]:
        raise NimctlError(
            "config-invalid",
            "nothing to serve was named",
            cause="neither NIM_RECIPE nor NIM_MODEL_PATH is set",
            fix="Set NIM_RECIPE=demo, or NIM_MODEL_PATH to a folder that holds a checkpoint.",
        )
    known = {v.name for v in VARIABLES} | set(ACCESS)
    access = sorted({*ACCESS, *(name for name in environ if name.startswith(tuple(ACCESS_FAMILIES)))})
    return Settings(
        **values,
        command_line_args=engine_args,
        dry_run=dry_run,
        secrets=_secrets(environ, (*values["passthrough_args"], *engine_args)),
        sources=sources,
        access={name: bool(environ.get(name)) for name in access},
        unknown=tuple(sorted(n for n in environ if n.startswith("NIM_") and n not in known)),
    )


def _value(variable: Variable, text: str) -> Any:
    try:
        return variable.read(text)
    except ValueError as error:
        raise NimctlError(
            "config-invalid",
            f"{variable.name}={text} cannot be used",
            cause=str(error),
            fix=f"Correct or unset {variable.name}. {variable.help}",
        ) from error


def _command_line(arguments: Sequence[str]) -> tuple[bool, str | None, tuple[str, ...]]:
    """Whether `--dry-run` is there, the model if one is named, and the engine's arguments."""
    rest = [a for a in arguments if a != "--dry-run"]
    dry_run = len(rest) != len(arguments)
    if rest and rest[0] == ACTIONS[0]:
        rest = rest[1:]
    if rest and not rest[0].startswith("-"):
        if "://" not in rest[0] and not rest[0].startswith("/"):
            raise NimctlError(
                "usage",
                f"{rest[0]!r} is neither an action nor a model",
                cause=f"the known actions, each as the first word, are {', '.join(ACTIONS)}; "
                "a model is an absolute path or a source URI",
                fix="Leave it out, or name the model with NIM_RECIPE or NIM_MODEL_PATH; `-h` tells more.",
            )
        return dry_run, rest[0], tuple(rest[1:])
    return dry_run, None, tuple(rest)


def _secrets(environ: Mapping[str, str], words: Sequence[str]) -> tuple[Secret, ...]:
    """Every key we can find out, so that it can be masked; a key file that cannot be read is an error.

    `words` are the engine's arguments, which may hold the address of a draft model.
    """
    values = [environ[name] for name in KEY_VARIABLES if environ.get(name)]
    values += [v for n, v in environ.items() if n.startswith(tuple(ACCESS_FAMILIES)) and is_secret_name(n)]
    values += [_password(environ.get(name, "")) for name in _ADDRESSES]
    values += [password for word in words for password in _PASSWORDS.findall(word)]
    for name in _SECRET_FILES:
        if not (path := environ.get(name)):
            continue
        try:
            values.append(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise NimctlError(
                "config-invalid",
                f"{name}={path} cannot be read",
                cause=str(error),
                fix="Mount the key file so that this user may read it (mode 0440, group 0).",
            ) from error
    return tuple(Secret(value) for value in values if value)


def _password(address: str) -> str:
    """The password in `scheme://user:password@host`, empty where there is none."""
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""


def image_limit() -> int:
    """`NIM_MAX_IMAGES_PER_PROMPT` of this process: for the part of us that runs inside the engine."""
    return int(_from(os.environ, "max_images"))


def state_dir(environ: Mapping[str, str]) -> Path:
    """`NIMCTL_STATE_DIR` alone: needed first, so that every later problem can be reported there."""
    return Path(_from(environ, "state_dir"))


def _from(environ: Mapping[str, str], field: str) -> Any:
    variable = next(v for v in VARIABLES if v.field == field)
    return _value(variable, environ.get(variable.name) or str(variable.default))


def explain(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each variable with its value and source, ready for JSON: what `--dry-run` shows. Holds no secret."""
    by_field = {f.name: getattr(settings, f.name) for f in fields(settings)}
    known = {v.name: {"value": _plain(by_field[v.field]), "source": settings.sources[v.name]} for v in VARIABLES}
    return known | {
        name: {"value": "set" if is_set else None, "source": "environment" if is_set else "default"}
        for name, is_set in settings.access.items()
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

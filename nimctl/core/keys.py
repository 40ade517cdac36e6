"""Where a key comes from: one lookup for login, pull, doctor and run. Pure but for the reader of key files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

NGC = "NGC_API_KEY"
HUGGING_FACE = "HF_TOKEN"
NAMES = (NGC, HUGGING_FACE)
# Where a key is looked for beside the variable of its own name, before it. NIM's own order:
# https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html
_BEFORE = {NGC: ("NGC_CLI_API_KEY",)}
_LONGEST = 64 * 1024  # bytes; no key is longer, and a wrong name may be that of an endless file

Reader = Callable[[Path], str]


def sources(name: str) -> tuple[str, ...]:
    """The variables in which the key `name` is looked for, in order; the last one names a file."""
    return (*_BEFORE.get(name, ()), name, f"{name}_FILE")


def read_key_file(path: Path) -> str:
    """The text of a key file. Raises OSError, and ValueError for what is no text."""
    with path.open("rb") as file:
        return file.read(_LONGEST).decode()


def find_key(name: str, environment: Mapping[str, str], read: Reader = read_key_file) -> Secret | None:
    """The key `name` from the first of its `sources` that is set, None where none is.

    Blank variables count as not set. Raises `config-invalid` for a key file that cannot be read and `key-missing` for
    an empty one: who names a file wants its key, and must not go on without it unawares.
    """
    *variables, file_variable = sources(name)
    for variable in variables:
        if value := environment.get(variable, "").strip():
            return Secret(value)
    if not (file := environment.get(file_variable, "").strip()):
        return None
    fix = f"Correct {file_variable}, or unset it."
    try:
        value = read(Path(file)).strip()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
        message = f"{file_variable} names {file}, which cannot be read"
        raise NimctlError("config-invalid", message, cause=why, fix=fix) from error
    if not value:
        raise NimctlError(
            "key-missing", f"{file_variable} names {file}, which is empty", cause="no key is in it", fix=fix
        )
    return Secret(value)


def is_present(name: str, environment: Mapping[str, str], read: Reader = read_key_file) -> bool:
    """True where `find_key` finds a key; a file that cannot be read, or is empty, holds none."""
    try:
        return find_key(name, environment, read) is not None
    except NimctlError:
        return False


def present(
    environment: Mapping[str, str], *, needed: str | None = None, read: Reader = read_key_file
) -> tuple[str, ...]:
    """The names of the keys that are there. A broken file is an error only for the `needed` one: see `find_key`."""
    if needed is not None:
        find_key(needed, environment, read)
    return tuple(name for name in NAMES if is_present(name, environment, read))

"""Reading a key: from stdin, from a prompt on a terminal, or from the environment. Never from the command line."""

import os
import sys

import typer

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

# The registry that the NGC key belongs to. A key is never sent to a registry that it was not made for.
NGC_REGISTRY = "nvcr.io"
_LONGEST = 64 * 1024  # bytes; the longest passwords are tokens of cloud registries, of some thousand


def read_key(registry: str, *, from_stdin: bool) -> Secret:
    """The key for `registry`; the environment's only for NVIDIA's own.

    Raises `key-missing` where none is given and nobody can be asked, else as `keys.find_key` does.
    """
    if from_stdin and not sys.stdin.isatty():
        key = _from_stdin()
    else:
        found = keys.find_key(keys.NGC, os.environ) if registry == NGC_REGISTRY and not from_stdin else None
        if found is None and sys.stdin.isatty():
            found = Secret(str(typer.prompt("API key", hide_input=True)).strip())
        key = found or Secret("")
    if not key.reveal():
        variables = f"none of {', '.join(keys.sources(keys.NGC))} is set"
        other = f"the key in the environment is for {NGC_REGISTRY} only"
        nowhere = f"{variables if registry == NGC_REGISTRY else other} and there is no terminal to ask on"
        raise NimctlError(
            "key-missing",
            "no API key was given",
            cause="stdin was empty" if from_stdin else nowhere,
            fix='export NGC_API_KEY, or: echo "$NGC_API_KEY" | nimctl login --password-stdin. '
            "Keys are made at https://org.ngc.nvidia.com/setup/api-keys"
            if registry == NGC_REGISTRY
            else f'echo "$PASSWORD" | nimctl login {registry} --username USER --password-stdin',
        )
    return key


def _from_stdin() -> Secret:
    """All that stdin holds, as docker reads it. Raises `key-refused` for what is no text, or longer than any key."""
    data = sys.stdin.buffer.read(_LONGEST + 1)
    try:
        if len(data) <= _LONGEST:
            return Secret(data.decode().strip())
    except UnicodeDecodeError:
        pass
    raise NimctlError(
        "key-refused",
        "this is not a key",
        cause="stdin holds something that is no text, or longer than any key",
        fix='Give the key alone: echo "$NGC_API_KEY" | nimctl login --password-stdin',
    )

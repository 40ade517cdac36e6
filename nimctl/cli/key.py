"""Reading a key: from stdin, from a prompt on a terminal, or from the environment. Never from the command line."""

import os
import sys

import typer

from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

# The registry that the NGC key belongs to. A key is never sent to a registry that it was not made for.
NGC_REGISTRY = "nvcr.io"


def read_key(registry: str, *, from_stdin: bool) -> Secret:
    """The key for `registry`; the environment's only for NVIDIA's own.

    Raises `key-missing` where none is given and nobody can be asked, else as `keys.find_key` does.
    """
    if from_stdin:
        key = Secret(sys.stdin.readline().strip())
    else:
        found = keys.find_key(keys.NGC, os.environ) if registry == NGC_REGISTRY else None
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
            "Keys are made at https://org.ngc.nvidia.com/setup/api-keys",
        )
    return key

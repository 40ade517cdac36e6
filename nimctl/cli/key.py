"""Reading a key: from stdin, from a prompt on a terminal, or from the environment. Never from the command line."""

import os
import sys

import typer

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret

# NIM's own order: https://docs.nvidia.com/nim/large-language-models/2.0.12/reference/environment-variables.html
VARIABLES = ("NGC_CLI_API_KEY", "NGC_API_KEY")


def read_key(*, from_stdin: bool) -> Secret:
    """The key. Raises `key-missing` where none is given and nobody can be asked."""
    if from_stdin:
        value = sys.stdin.readline().strip()
    else:
        value = next((os.environ[name].strip() for name in VARIABLES if os.environ.get(name)), "")
        if not value and sys.stdin.isatty():
            value = str(typer.prompt("API key", hide_input=True)).strip()
    if not value:
        raise NimctlError(
            "key-missing",
            "no API key was given",
            cause="stdin was empty" if from_stdin else "NGC_API_KEY is not set and there is no terminal to ask on",
            fix='export NGC_API_KEY, or: echo "$NGC_API_KEY" | nimctl login --password-stdin. '
            "Keys are made at https://org.ngc.nvidia.com/setup/api-keys",
        )
    return Secret(value)

"""The private key that signs: from a file, its passphrase from the environment, stdin or a prompt. Never from argv."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.core.secret import Secret

if TYPE_CHECKING:
    from nimctl.trust.keys import PrivateKey

PASSPHRASE = "NIMCTL_SIGN_PASSPHRASE"  # noqa: S105 (the name of a variable)


def private_key(path: Path, *, from_stdin: bool = False) -> PrivateKey:
    """The key in `path`. An encrypted one asks on a terminal where no passphrase was given. Raises `trust-invalid`."""
    from nimctl.trust.keys import is_encrypted, read_private

    given = passphrase(from_stdin=from_stdin)
    encrypted = is_encrypted(path)
    if encrypted and given is None and sys.stdin.isatty():
        given = _asked(f"Passphrase of {path}")
    return read_private(path, given if encrypted else None)


def passphrase(*, from_stdin: bool = False) -> Secret | None:
    """The passphrase from stdin (its first line) or NIMCTL_SIGN_PASSPHRASE; None where none is given."""
    value = sys.stdin.readline().rstrip("\r\n") if from_stdin else os.environ.get(PASSPHRASE, "")
    return Secret(value) if value else None


def new_passphrase(*, from_stdin: bool = False) -> Secret | None:
    """As `passphrase`, and on a terminal asked for twice; left empty there, the key is not encrypted."""
    import typer

    given = passphrase(from_stdin=from_stdin)
    if given is not None or from_stdin or not sys.stdin.isatty():
        return given
    text = "Passphrase for the new key (empty: none)"
    value = str(typer.prompt(text, hide_input=True, default="", show_default=False, confirmation_prompt=True))
    return Secret(value) if value else None


def _asked(text: str) -> Secret:
    import typer

    return Secret(str(typer.prompt(text, hide_input=True)))

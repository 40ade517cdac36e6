"""`nimctl login`: check a registry key and store it where docker finds it."""

from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("login")
def login(
    registry: Annotated[str, typer.Argument(help="The registry.")] = "nvcr.io",
    username: Annotated[str, typer.Option("--username", "-u", help="The user.")] = "$oauthtoken",
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the key from stdin.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Log in to a registry.

    The key comes from NGC_API_KEY or stdin, never from the command line, and is kept where `docker login` keeps it.

    Example:  echo "$NGC_API_KEY" | nimctl login --password-stdin
    """
    import os

    from nimctl.cli.key import read_key
    from nimctl.registry import credentials
    from nimctl.render import Output

    out = Output.choose("login", as_json=as_json, quiet=quiet)
    key = read_key(registry, from_stdin=password_stdin)
    with out.working(f"asking {registry} whether it accepts the key"):
        folder = credentials.config_folder()
        stored = credentials.login(registry, username, key, config_dir=folder, environment=os.environ)
    for warning in stored.warnings:
        out.text(warning, style="yellow")
    done = {"ok": True, "registry": registry, "stored": stored.where, "plaintext": stored.plaintext}
    out.document({**done, "offer": stored.offer, "warnings": list(stored.warnings)})
    out.text(f"logged in to {registry}; the key is stored in {stored.where}")

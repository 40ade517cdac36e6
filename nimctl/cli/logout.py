"""`nimctl logout`: take the login of a registry away from wherever it is kept."""

from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("logout")
def logout(
    registry: Annotated[str, typer.Argument(help="The registry.")] = "nvcr.io",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Log out of a registry: forget its key.

    Taken from Docker's stores, so that docker has no login either. A key in the environment is left alone, and said.

    Example:  nimctl logout nvcr.io
    """
    import os

    from nimctl.registry import credentials
    from nimctl.render import Output

    out = Output.choose("logout", as_json=as_json, quiet=quiet)
    removed = credentials.logout(registry, config_dir=credentials.config_folder(), environment=os.environ)
    for warning in removed.warnings:
        out.text(warning, style="yellow")
    done = {"ok": True, "registry": registry, "removed": list(removed.where), "warnings": list(removed.warnings)}
    out.document(done)
    if removed.where:
        out.text(f"logged out of {registry}; the key was taken from {' and '.join(removed.where)}")
    else:
        out.text(f"there was no login for {registry}")

"""`nimctl cache`: the folder that holds weights and compile caches."""

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The folder that holds weights and compile caches.")


@app.command("init")
@verb("cache")
def init(
    folder: Annotated[Path | None, typer.Argument(help="The folder [default: the configured cache].")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Make a folder writable for containers of any user id with group 0: group 0, setgid, g+rwX.

    Example:  sudo nimctl cache init /data/nim
    """
    from nimctl.cli import config as configuration
    from nimctl.core import cache
    from nimctl.render import Output

    out = Output.choose("cache", as_json=as_json, quiet=quiet)
    root = configuration.load({"cache": folder}).cache
    with out.working(f"preparing {root}"):
        done = cache.apply_init(root)
    out.document({"ok": True, "cache": str(root), **done.to_json()})
    out.text(f"{root} is ready: {done.summary}")


@app.callback()
def _group() -> None:
    """Keep `init` a subcommand while it is the only one."""

"""`nimctl cache`: the folder that holds weights and compile caches."""

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Cache, Debug, Json, Quiet
from nimctl.cli.verb import verb

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The folder that holds weights and compile caches.")

Which = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A recipe, an address such as hf://org/name, or a repository with or without :REVISION as "
        "`nimctl cache ls` shows it. Left out: everything.",
        show_default=False,
    ),
]


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


@app.command("ls")
@verb("cache")
def ls(
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """List what the cache holds: revisions, sizes, whether they are whole and verified, and which runs use them.

    Example:  nimctl cache ls --json
    """
    from nimctl.cli import config as configuration
    from nimctl.cli import holdings
    from nimctl.render import Output

    out = Output.choose("cache", as_json=as_json, quiet=quiet)
    holdings.show(configuration.load({"cache": cache}).cache, out)


@app.command("verify")
@verb("cache")
def verify(
    model: Which = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch what is damaged or missing again, from where it came.")
    ] = False,
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Hash every file of the cache again and compare; exit 6 if anything is wrong.

    Example:  nimctl cache verify kimi-k2.5 --repair
    """
    from nimctl.cli import checking
    from nimctl.cli import config as configuration
    from nimctl.render import Output

    out = Output.choose("cache", as_json=as_json, quiet=quiet)
    checking.verify(configuration.load({"cache": cache}), model, out, repair=repair)


@app.command("prune")
@verb("cache")
def prune(
    keep: Annotated[
        int, typer.Option(min=0, metavar="N", help="Keep the N newest revisions that no name points at.")
    ] = 0,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Only what has not changed for so long.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and leave.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where there is no terminal.")] = False,
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Free the room of what nobody needs: old revisions, dead downloads, dead compile caches. Shows it and asks.

    Example:  nimctl cache prune --older-than 30 --dry-run
    """
    from nimctl.cli import config as configuration
    from nimctl.cli import holdings
    from nimctl.render import Output

    out = Output.choose("cache", as_json=as_json, quiet=quiet)
    wanted = holdings.Wanted(keep, older_than, dry_run, yes)
    holdings.prune(configuration.load({"cache": cache}).cache, wanted, out)

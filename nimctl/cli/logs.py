"""`nimctl logs`: what a run wrote."""

from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet, RunName
from nimctl.cli.verb import verb


@verb("logs")
def logs(
    name: RunName = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C or its end.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="How many of the last lines.")] = 200,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Print the log of a run, keys masked.

    Example:  nimctl logs demo --follow
    """
    from nimctl.cli.runs import find
    from nimctl.core.errors import NimctlError
    from nimctl.render import Output

    out = Output.choose("logs", as_json=as_json, quiet=quiet)
    if as_json and follow:
        raise NimctlError(
            "usage", "--json and --follow exclude each other", cause="one document has an end", fix="Drop one of them."
        )
    runtime, handle = find(name)
    lines = runtime.logs(handle, tail=tail, follow=follow)
    if as_json:
        out.document({"ok": True, **handle.to_json(), "lines": list(lines)})
        return
    for line in lines:
        out.result(line)

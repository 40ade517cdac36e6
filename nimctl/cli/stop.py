"""`nimctl stop`: end a run after a clean drain."""

from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet, RunName
from nimctl.cli.verb import verb


@verb("stop")
def stop(
    name: RunName = None,
    timeout: Annotated[
        int | None, typer.Option(min=0, help="Seconds until it is killed [default: the run's drain time].")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Stop a run and remove its container; the cache stays.

    Example:  nimctl stop demo
    """
    from nimctl.cli.runs import find
    from nimctl.render import Output

    out = Output.choose("stop", as_json=as_json, quiet=quiet)
    runtime, handle = find(name)
    with out.working(f"stopping {handle.name}"):
        code = runtime.stop(handle, timeout=timeout)
    out.document({"ok": True, **handle.to_json(), "exit_code": code})
    out.text(f"{handle.name} stopped" + ("" if code is None else f" (exit code {code})"))

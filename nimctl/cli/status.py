"""`nimctl status`: how far a run is."""

from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet, RunName
from nimctl.cli.verb import verb


@verb("status")
def status(
    name: RunName = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is ready, or fail with its error.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Show the stages of a run.

    Exit 0 means ready.

    Example:  nimctl status demo --wait
    """
    from nimctl.cli.runs import find
    from nimctl.core.errors import NimctlError
    from nimctl.launch import progress
    from nimctl.render import Output

    out = Output.choose("status", as_json=as_json, quiet=quiet)
    runtime, handle = find(name)
    with out.startup() as view:
        if wait:
            report = progress.follow(runtime, handle, on_update=view.update, on_note=view.note)
        else:
            report = progress.look(runtime, handle)
            view.update(report)
    out.timeline(report)
    if report.state != "ready":
        error = NimctlError(
            "not-ready",
            f"{handle.name} is {report.state}",
            cause=f"stage {report.current.name}" if report.current else "the server has not said how far it is",
            fix=f"`nimctl status {handle.name} --wait` waits; `nimctl logs {handle.name}` shows what it does.",
        )
        out.error(error, {**handle.to_json(), "startup": report.to_json()})
        raise typer.Exit(error.exit_code)
    out.document({"ok": True, **handle.to_json(), "startup": report.to_json()})
    out.text(f"{handle.name} is {report.state} at {handle.url}", style="bold")

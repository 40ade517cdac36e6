"""`nimctl drift`: what runs, held against its lock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Debug, Json, Quiet, RunName
from nimctl.cli.verb import verb


@verb("drift")
def drift(
    name: RunName = None,
    lock: Annotated[Path, typer.Option("--lock", metavar="FILE", help="The lock file.")] = Path("nimctl.lock"),
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Compare a run, alive or dead, with its lock file.

    Image, weights, layout, engine options, variables, confinement. Exit 0: no drift; 3: drift, each thing named.

    Example:  nimctl drift demo --lock nimctl.lock
    """
    from nimctl.cli import seeing
    from nimctl.cli.locks import differences
    from nimctl.cli.locks import file as lock_file
    from nimctl.cli.runs import find
    from nimctl.core.errors import NimctlError
    from nimctl.lock.drift import drift as compare
    from nimctl.render import Output

    out = Output.choose("drift", as_json=as_json, quiet=quiet)
    wanted = lock_file.read(lock)
    runtime, handle = find(name)
    found = compare(wanted.lock, wanted.digest, seeing.see(runtime, handle))
    told = {
        "run": handle.name,
        "file": str(lock),
        "lock": wanted.digest,
        "differences": [row.to_json() for row in found.rows],
        "unseen": list(found.unseen),
    }
    for sentence in found.unseen:
        out.text(sentence, style="yellow")
    if found.rows:
        differences.tell(found.rows, "running", out)
        first = found.rows[0]
        error = NimctlError(
            "drift-found",
            f"{handle.name} has drifted from {lock} in {len(found.rows)} thing{'s' if len(found.rows) != 1 else ''}",
            cause=f"{first.what} is locked as {first.locked}, and what runs has {first.here}",
            fix=first.fix,
        )
        out.error(error, told)
        raise typer.Exit(error.exit_code)
    out.document({"ok": True, **told})
    out.text(f"{handle.name} is as {lock} says", style="bold green")

"""`nimctl lock`: write down exactly what a run would start, and see whether that still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Image, Json, Model, Quiet
from nimctl.cli.verb import verb

_REPORT = "lock-report"  # not "lock": the file has that schema


@verb(_REPORT)
def lock(
    model: Model = None,
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ENGINE ARGS]", help="Arguments for vLLM, after `--`.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The lock file.", metavar="FILE")] = Path(
        "nimctl.lock"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 3 with each difference where the lock is not current.")
    ] = False,
    gpus: Gpus = None,
    image: Image = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="Variable for the server; repeatable.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Only this profile, by name or id (`nimctl plan`).", show_default=False)
    ] = None,
    cache: Cache = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Write down exactly what `nimctl run MODEL` would start here.

    Image digest, weights with their hashes, recipe, layout, arguments. No weights and no image are fetched.
    `nimctl run --locked` starts exactly that.

    Example:  nimctl lock demo --gpus none
    """
    from nimctl.cli import config as configuration
    from nimctl.cli import launching
    from nimctl.cli.locks import contradictions, here
    from nimctl.render import Output

    arguments = list(engine_args or ())
    if model is not None and model.startswith("-"):  # `nimctl lock -- --max-model-len 4096`: no model was named
        arguments.insert(0, model)
        model = None
    out = Output.choose(_REPORT, as_json=as_json, quiet=quiet)
    config = configuration.load({"gpus": gpus, "cache": cache})
    if check:
        given = contradictions.Given(model, image, env or (), profile, arguments)
        found, moved = here.check(output, given, config, out)
        told = {"file": str(output), "lock": found.digest, "model": found.lock.model}
        out.document({"ok": True, **told, "moved": moved})
        out.text(f"{output} is current: {found.lock.model}", style="bold green")
        return
    asked = launching.Asked(model, image=image, env=env or (), profile=profile, engine_args=arguments, dry_run=False)
    made = here.make(asked, config, output, out)
    out.document(
        {
            "ok": True,
            "file": str(output),
            "changed": made.changed,
            "lock": made.digest,
            "notes": list(made.notes),
            "moved": made.moved,
        }
    )
    for note in made.notes:
        out.text(note, style="yellow")
    out.text(f"{'wrote' if made.changed else 'unchanged:'} {output} ({made.digest})", style="bold")
    out.result(str(output))

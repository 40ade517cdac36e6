"""`nimctl doctor`: look at the host, judge it, say what to do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Host, Json, Model, Port, Quiet, Runtime
from nimctl.cli.verb import verb

if TYPE_CHECKING:
    from nimctl.render import Output


@verb("doctor")
def doctor(
    model: Model = None,
    gpus: Gpus = None,
    cache: Cache = None,
    host: Host = None,
    port: Port = None,
    runtime: Runtime = None,
    only: Annotated[str | None, typer.Option(help="Only these checks or groups, comma separated.")] = None,
    skip: Annotated[str | None, typer.Option(help="Not these checks or groups, comma separated.")] = None,
    list_checks: Annotated[bool, typer.Option("--list-checks", help="List the checks and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the checks that do not apply too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    save_facts: Annotated[Path | None, typer.Option(help="Write what was observed to a file.")] = None,
    facts: Annotated[Path | None, typer.Option(help="Judge saved facts instead of this host.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the report as Markdown, for a bug report.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Show what nimctl can mend, ask, mend it and look again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --fix changes something.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Also start a container that must see the GPUs.")] = False,
    image: Annotated[str | None, typer.Option(help="Image for --probe.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Check this host for MODEL, and say what to mend.

    Example:  nimctl doctor demo --json
    """
    from nimctl.cli import config as configuration
    from nimctl.cli import diagnosis
    from nimctl.cli import host as host_look
    from nimctl.cli.target import resolve
    from nimctl.render import Output

    _refuse_contradictions(markdown=markdown, as_json=as_json, yes=yes, fix=fix)
    out = Output.choose("doctor", as_json=as_json, quiet=quiet or markdown)
    if list_checks:
        _list_checks(out)
        return
    config = configuration.load({"gpus": gpus, "cache": cache, "host": host, "port": port, "runtime": runtime})
    target = resolve(model, config)
    out.text(f"model {target.recipe.name} (from {target.origin}): {target.recipe.title}", style="bold")

    def look() -> diagnosis.Diagnosis:
        return diagnosis.diagnose(
            target, config, out, replay=facts, only=_names(only), skip=_names(skip), strict=strict
        )

    found, mended = look(), None
    if fix:
        from nimctl.cli import mending

        mended = mending.mend(found, look, out, yes=yes, replayed=facts is not None)
        found = mended.diagnosis
    if save_facts is not None:
        host_look.save(found.facts, save_facts)
        out.text(f"facts written to {save_facts}")
    if probe:
        from nimctl.cli.probe import run_probe

        found = found.plus(*run_probe(found, image, out))
    diagnosis.show(found, out, verbose=verbose, markdown=markdown, more=mended.to_json() if mended else {})
    if mended and mended.error:
        out.error_panel(mended.error)
        raise typer.Exit(mended.error.exit_code)
    if found.report.exit_code:
        raise typer.Exit(found.report.exit_code)


def _list_checks(out: "Output") -> None:
    from nimctl.doctor import checks

    listed = [{"id": c.id, "group": c.group, "title": c.title, "says": list(c.says)} for c in checks.ALL]
    out.document({"checks": listed})
    out.table(("CHECK", "GROUP", "WHAT"), [(c.id, c.group, c.title) for c in checks.ALL])


def _refuse_contradictions(*, markdown: bool, as_json: bool, yes: bool, fix: bool) -> None:
    from nimctl.core.errors import NimctlError

    if markdown and as_json:
        message = "--markdown and --json exclude each other"
        raise NimctlError("usage", message, cause="each is all of stdout", fix="Choose one.")
    if yes and not fix:
        raise NimctlError("usage", "--yes has nothing to agree to", cause="--fix was not given", fix="Add --fix.")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

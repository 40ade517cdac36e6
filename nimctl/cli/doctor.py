"""`nimctl doctor`: look at the host, judge it, say what to do."""

from pathlib import Path
from typing import Annotated

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Host, Json, Model, Port, Quiet, Runtime
from nimctl.cli.verb import verb


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
    from nimctl.cli import host as host_look
    from nimctl.cli.target import resolve
    from nimctl.core.errors import CATALOGUE, NimctlError
    from nimctl.doctor import checks, runner
    from nimctl.render import Output

    out = Output.choose("doctor", as_json=as_json, quiet=quiet)
    if list_checks:
        out.document({"checks": [{"id": c.id, "group": c.group, "title": c.title} for c in checks.ALL]})
        out.table(("CHECK", "GROUP", "WHAT"), [(c.id, c.group, c.title) for c in checks.ALL])
        return
    config = configuration.load({"gpus": gpus, "cache": cache, "host": host, "port": port, "runtime": runtime})
    target = resolve(model, config)
    out.text(f"model {target.recipe.name} (from {target.origin}): {target.recipe.title}", style="bold")
    observed = host_look.look(config, out, replay=facts)
    if save_facts is not None:
        host_look.save(observed, save_facts)
        out.text(f"facts written to {save_facts}")
    needs = host_look.needs_for(target, config, host_look.wanted_gpus(config, target.recipe, observed))
    report = runner.run_checks(observed, needs, only=_names(only), skip=_names(skip))
    if probe:
        from nimctl.cli.probe import run_probe

        report = report.plus(run_probe(observed, needs, config, target, image, out))
    out.document({**report.to_json(), "model": target.recipe.name})
    if out.mode != "json":
        hidden = () if verbose else ("skip",) if out.mode == "human" else ("skip", "pass", "warn", "unknown")
        shown = [f for f in report.findings if f.verdict not in hidden]
        out.findings(shown)
        out.text(report.closing)
    if report.exit_code:
        raise typer.Exit(report.exit_code)
    if strict and report.counts.get("warn"):
        raise typer.Exit(CATALOGUE["preflight-failed"].exit_code)
    if not report.findings:
        raise NimctlError(
            "usage", "no check was run", cause="--only and --skip leave none", fix="See `nimctl doctor --list-checks`."
        )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

"""`nimctl run`: preflight, image, cache, start, wait for ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Host, Image, Json, Model, Port, Quiet, Runtime, Verify
from nimctl.cli.verb import verb

if TYPE_CHECKING:
    from nimctl.cli.launching import Prepared
    from nimctl.render import Output


@verb("run")
def run(
    model: Model = None,
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ENGINE ARGS]", help="Arguments for vLLM, after `--`.")
    ] = None,
    gpus: Gpus = None,
    port: Port = None,
    host: Host = None,
    cache: Cache = None,
    runtime: Runtime = None,
    image: Image = None,
    name: Annotated[str | None, typer.Option(help="Name of the run [default: the recipe's].")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="Variable for the server; repeatable.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Only this profile, by name or id: vllm-int4-tp8-pp1 (`nimctl plan`).", show_default=False),
    ] = None,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked", help="Start exactly what the lock file says; MODEL is that file [default: nimctl.lock]."
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it has started.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its docker run line.")] = False,
    verify: Verify = None,
    force: Annotated[bool, typer.Option("--force", help="Start although a check failed; it is logged.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Start MODEL, and return once it answers.

    Every stage is shown. It goes on serving; `nimctl stop` ends it.

    Example:  nimctl run demo --gpus all --port 8000
    """
    from nimctl.cli import config as configuration
    from nimctl.cli import launching
    from nimctl.render import Output

    arguments = list(engine_args or ())
    if model is not None and model.startswith("-"):  # `nimctl run -- --max-model-len 4096`: no model was named
        arguments.insert(0, model)
        model = None
    out = Output.choose("run", as_json=as_json, quiet=quiet)
    flags = {"gpus": gpus, "port": port, "host": host, "cache": cache, "runtime": runtime, "verify": verify}
    config = configuration.load(flags)
    if locked:
        from nimctl.cli.locks import contradictions
        from nimctl.cli.locks import file as lock_file
        from nimctl.cli.locks import run as locked_run

        file, model = lock_file.file_of(model)
        given = contradictions.Given(model, image, env or (), profile, arguments, name)
        prepared = locked_run.prepare(file, given, config, out)
    else:
        asked = launching.Asked(
            model, image=image, name=name, env=env or (), profile=profile, engine_args=arguments, dry_run=dry_run
        )
        prepared = launching.prepare(asked, config, out)
    if dry_run:
        _show_plan(prepared.with_known_image(), out)
        return
    launching.check(prepared, out, force=force)
    started = launching.start(prepared, out, force=force)
    if detach:
        out.document({"ok": True, "state": "started", **started.to_json()})
        out.text(f"started {started.name}; `nimctl status {started.name} --wait` tells when it is ready")
        return
    report = launching.wait(started, out)
    out.document({"ok": True, "state": "ready", **started.to_json(), "startup": report.to_json()})
    out.text(f"{started.name} is ready at {started.url}", style="bold green")
    out.text(f"try:   curl {started.url}/v1/models\nstop:  nimctl stop {started.name}")


def _show_plan(prepared: Prepared, out: Output) -> None:
    from nimctl.launch import plan as planning

    out.document({"ok": True, "plan": planning.to_json(prepared.plan), "command": prepared.command_line})
    if out.mode == "json":
        return
    for note in prepared.notes:
        out.text(f"# {note}", style="dim")
    out.result(prepared.command_line)
    out.table(("SETTING", "VALUE", "FROM", "WHY"), planning.explain(prepared.plan))

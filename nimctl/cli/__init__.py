"""The command line: one small module a verb, each parses, calls one function and renders. Only importer of typer.

Verbs import what they use inside their functions, so that `--help`, completion and cheap verbs stay fast; this is the
only room of the house where that is allowed.
"""

import typer

from nimctl.cli import build, cache, doctor, login, logs, models, ps, pull, run, status, stop

app = typer.Typer(
    name="nimctl",
    help="Take a bare GPU host to a healthy OpenAI-compatible server, and prove every step.\n\n"
    "Start here:   nimctl doctor, nimctl pull, nimctl run --gpus all\n\n"
    "No GPU yet?   nimctl run demo",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs no rich: 100 ms saved on every --help
    pretty_exceptions_enable=False,  # tracebacks with local variables would print keys
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("doctor")(doctor.doctor)
app.command("models")(models.models)
app.command("login")(login.login)
app.command("pull")(pull.pull)
app.command("build")(build.build)
app.command("run", context_settings={"allow_interspersed_args": True})(run.run)
app.command("ps")(ps.ps)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.add_typer(cache.app, name="cache")


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", "-V", is_eager=True, help="Print the version and leave."),
) -> None:
    if version:
        from nimctl import __version__

        typer.echo(f"nimctl {__version__}")
        raise typer.Exit


def main() -> None:
    """Parse sys.argv and run the verb; usage errors exit 2, everything else as `nimctl.cli.verb` decides."""
    app()

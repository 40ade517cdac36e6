"""The command line: one small module a verb, each parses, calls one function and renders. Only importer of typer.

Only the verb that was typed is imported; the others appear in `--help` by the summaries below. Reading the signatures
of all of them would double the time of every start. Verbs in turn import what they use inside their functions; this is
the only room of the house where that is allowed.
"""

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import typer

# typer exports its kinds of usage error, but not their common base.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

# In the order of the help. Each is the module of its name, and the summary its docstring's first line.
VERBS = {
    "doctor": "Check this host for MODEL, and say what to mend.",
    "plan": "Choose the layout for MODEL, and account for its memory.",
    "models": "List the models nimctl knows, and what fits this host.",
    "login": "Log in to a registry.",
    "logout": "Log out of a registry: forget its key.",
    "pull": "Pull or build the image that serves MODEL.",
    "build": "Build the image `cuda` or `cpu` from this version of nimctl.",
    "sign": "Sign IMAGE in its registry with a local key.",
    "verify": "Verify the signatures of an image or of weights; exit 5 if none is good.",
    "bundle": "Everything for a host without a network, in one folder: make, verify, load.",
    "run": "Start MODEL, and return once it answers.",
    "lock": "Write down exactly what `nimctl run MODEL` would start here.",
    "drift": "Compare a run, alive or dead, with its lock file.",
    "ps": "List the runs that nimctl started, running or dead.",
    "status": "Show the stages of a run.",
    "logs": "Print the log of a run, keys masked.",
    "stop": "Stop a run and remove its container; the cache stays.",
    "cache": "The folder that holds weights and compile caches.",
}
# What the documents of a verb are called where its name is that of a file.
_REPORTS = {"bundle": "bundle-report", "lock": "lock-report"}

_HELP = """Take a bare GPU host to a healthy OpenAI-compatible server, and prove every step.

Start here:   nimctl doctor, nimctl plan, nimctl pull, nimctl run --gpus all

No GPU yet?   nimctl run demo"""


def build_app(wanted: str | None) -> typer.Typer:
    """The application with the verb `wanted` in full and the others by name; None: all in full, as completion needs."""
    app = typer.Typer(
        name="nimctl",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help needs no rich: 100 ms saved on every --help
        pretty_exceptions_enable=False,  # tracebacks with local variables would print keys
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, summary in VERBS.items():
        if wanted is not None and name != wanted:
            app.command(name, help=summary)(_another)
            continue
        module = import_module(f"nimctl.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _root(
    version: bool = typer.Option(False, "--version", "-V", is_eager=True, help="Print the version and leave."),
) -> None:
    if version:
        from nimctl import __version__

        typer.echo(f"nimctl {__version__}")
        raise typer.Exit


def _another() -> None:
    raise AssertionError("this verb was not the one that was typed")


def main() -> None:
    """Parse sys.argv and run the verb; usage errors exit 2, everything else as `nimctl.cli.verb` decides."""
    completing = "_NIMCTL_COMPLETE" in os.environ
    typed = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        code = build_app(None if completing else typed)(prog_name="nimctl", standalone_mode=False)
    except USAGE_ERROR as error:
        _refuse(error, typed)
    except typer.Abort:  # Ctrl-C or the end of input at a prompt
        sys.exit(130)
    except OSError as error:  # of the help itself: verbs have their own end
        from nimctl.cli.verb import unwritable

        sys.stderr.write(f"{unwritable(error)}\n")
        sys.exit(9)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(error: Any, typed: str) -> NoReturn:
    """A usage error: typer's own words for people and, where JSON was asked for, the one document that scripts read."""
    error.show(file=sys.stderr)
    if "--json" in sys.argv:
        from nimctl.core.errors import NimctlError
        from nimctl.render import Output

        hint = f"See `nimctl {typed} --help`." if typed in VERBS else "See `nimctl --help`."
        refusal = NimctlError("usage", error.format_message(), cause="the command line cannot be understood", fix=hint)
        verb = _REPORTS.get(typed, typed) if typed in VERBS else "nimctl"
        Output.choose(verb, as_json=True).document({"ok": False, "error": refusal.to_json()})
    sys.exit(error.exit_code)

"""The commands that documents and examples show, and whether the command line understands them."""

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from nimctl.cli import USAGE_ERROR, build_app

_BLOCK = re.compile(r"```(?:\w*)\n(.*?)```", re.DOTALL)
# a comment, a redirection, or the column beside the commands that says what each is for
_END = re.compile(r"\s+#|\s*\d?>|\s{3,}")
_SPLIT = re.compile(r"\s*(?:\|\||&&|[|;&])\s*")
_WORD = re.compile(r"\$\{?[A-Za-z_]\w*\}?")


def blocks(path: Path) -> list[str]:
    """The code blocks of a Markdown file."""
    return _BLOCK.findall(path.read_text(encoding="utf-8"))


def commands(shell: str) -> list[str]:
    """The `nimctl ...` commands in a piece of shell, each without what follows it; continued lines are joined."""
    found = []
    for line in re.sub(r"\s*\\\n\s*", " ", shell).splitlines():
        for part in _SPLIT.split(line.strip()):
            words = re.sub(r"^(?:- |if |! |then |\{ |sudo |\w+=\$\()+", "", part)
            if words.startswith("nimctl "):
                found.append(_END.split(words)[0].rstrip(")"))
    return found


def refusal(command: str) -> str | None:
    """Why the command line would refuse `nimctl ...`, None where it does. Variables count as words."""
    words = shlex.split(_WORD.sub("1", command))[1:]
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is None:
        return None if words and set(words) <= {"--version", "--help", "-h", "-V"} else f"no verb in {words}"
    program: Any = typer.main.get_command(build_app(verb))
    try:
        context = program.make_context("nimctl", list(words))
        while hasattr(context.command, "resolve_command"):
            name, inner, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
            context = inner.make_context(name, rest, parent=context)
    except USAGE_ERROR as error:
        return str(error.format_message())
    except typer.Exit:
        return None
    return None

"""The table of verbs says what the verbs say of themselves, and a start imports no more than it needs."""

import subprocess
import sys

import pytest
import typer.main

from nimctl.cli import VERBS, build_app


@pytest.mark.parametrize("name", VERBS)
def test_a_summary_is_the_first_line_of_its_verb(name: str) -> None:
    command = typer.main.get_command(build_app(None)).commands[name]  # type: ignore[attr-defined]
    text = command.help or ""
    assert text.splitlines()[0] == VERBS[name]
    if name not in ("cache", "bundle"):  # whose verbs have examples of their own
        assert "Example:" in text


def test_the_help_looks_the_same_whichever_verb_was_typed() -> None:
    def summaries(wanted: str | None) -> dict[str, str]:
        commands = typer.main.get_command(build_app(wanted)).commands  # type: ignore[attr-defined]
        return {name: command.get_short_help_str(100) for name, command in commands.items()}

    assert summaries("run") == summaries("") == summaries(None)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["run", "--help"], ["plan", "--help"], ["models", "--help"]]
)
def test_cheap_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from nimctl.__main__ import main; sys.argv = ['nimctl', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"rich", "docker", "requests", "yaml", "pynvml", "pydantic", "nimctl.launch", "nimctl.doctor"}
    if arguments == ["--version"]:
        assert "typer" not in loaded


def test_completion_knows_verbs_and_options() -> None:
    environment = {"PATH": "/usr/bin:/bin", "_NIMCTL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    argv = [sys.executable, "-m", "nimctl"]
    done = subprocess.run(
        argv, env={**environment, "COMP_WORDS": "nimctl run --po"}, capture_output=True, text=True, check=False
    )
    assert "--port" in done.stdout

"""Every `nimctl` command in README, docs and examples is understood by the command line of this version."""

import re
from pathlib import Path

import pytest

from nimctl.cli import VERBS
from tests.lib.documented import blocks, commands, refusal

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name != "cli.md")]
SHOWN = {(path, command) for path in DOCUMENTS for block in blocks(path) for command in commands(block)}


@pytest.mark.parametrize(
    ("path", "command"), sorted(SHOWN), ids=lambda v: v.relative_to(ROOT).as_posix() if isinstance(v, Path) else v
)
def test_a_command_of_the_documents_is_understood(path: Path, command: str) -> None:
    assert refusal(command) is None, f"{path}: {command}"


def test_most_verbs_are_shown() -> None:
    verbs = {command.split()[1] for _, command in SHOWN}
    assert len(SHOWN) > 40 and verbs >= set(VERBS) - {"models", "ps"}


@pytest.mark.parametrize(
    "command",
    ["nimctl run --nonsense", "nimctl nope", "nimctl cache nope", "nimctl run --port 99999", "nimctl build", "nimctl"],
)
def test_a_wrong_command_is_refused(command: str) -> None:
    assert refusal(command)


@pytest.mark.parametrize(
    ("shell", "found"),
    [
        ("nimctl status x --wait || { nimctl logs x; exit 1; }", ["nimctl status x --wait", "nimctl logs x"]),
        ("- nimctl doctor --json > d.json # why", ["nimctl doctor --json"]),
        ("nimctl run a \\\n  --detach", ["nimctl run a --detach"]),
        ('echo "$KEY" | sudo nimctl login --password-stdin', ["nimctl login --password-stdin"]),
        ("pip install nimctl; echo nimctl run", []),
    ],
)
def test_commands_are_found_in_shell(shell: str, found: list[str]) -> None:
    assert commands(shell) == found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path}: {target}"
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ +(.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{path}: {target}"


def _anchor(heading: str) -> str:
    """A heading's anchor, as the forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")

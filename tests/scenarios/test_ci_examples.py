"""Duty: the examples for CI can be copied as they are. They lint clean, and their commands exist."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lib.documented import commands, refusal

ROOT = Path(__file__).parents[2]
GITHUB, GITLAB = ROOT / "docs/ci/github-actions.yml", ROOT / "docs/ci/gitlab-ci.yml"
BOTH = pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda p: p.name)
PROGRAMS = Path(sys.executable).parent


def document(path: Path) -> Any:
    # `on` is a key of GitHub's, and a truth of YAML 1.1
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def scripts(path: Path) -> Iterator[str]:
    """Every piece of shell in an example."""
    if path == GITHUB:
        for job in document(path)["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)
        return
    for job in document(path).values():
        if isinstance(job, dict):
            yield from ("\n".join(job[part]) for part in ("before_script", "script", "after_script") if part in job)


@pytest.mark.parametrize(("path", "schema"), [(GITHUB, "vendor.github-workflows"), (GITLAB, "vendor.gitlab-ci")])
def test_it_keeps_to_the_published_schema(path: Path, schema: str, tmp_path: Path) -> None:
    lint = [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", schema]
    done = subprocess.run([*lint, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace("runs-on:", "runs-at:").replace("  stage: deploy", "  stage: [1, {}]"))
    assert subprocess.run([*lint, str(broken)], capture_output=True, timeout=60, check=False).returncode == 1


def test_the_workflow_is_secure(tmp_path: Path) -> None:
    audit = [str(PROGRAMS / "zizmor"), "--offline", "--no-progress", "--format", "json"]
    done = subprocess.run([*audit, str(GITHUB)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and json.loads(done.stdout) == [], done.stdout + done.stderr
    careless = tmp_path / ".github/workflows/deploy.yml"
    careless.parent.mkdir(parents=True)
    careless.write_text(re.sub(r"@[0-9a-f]{40}", "@main", GITHUB.read_text()))
    assert subprocess.run([*audit, str(careless)], capture_output=True, timeout=60, check=False).returncode != 0


def test_actions_of_others_are_pinned_by_commit() -> None:
    steps = [step for job in document(GITHUB)["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)


@BOTH
def test_the_file_is_tidy(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n") and not text.endswith("\n\n") and "\t" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip() or len(line) > 120]
    assert no_key_twice(yaml.compose(text))


def no_key_twice(node: Any) -> bool:
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        return len(names) == len(set(names)) and all(no_key_twice(value) for _, value in node.value)
    return not isinstance(node, yaml.SequenceNode) or all(map(no_key_twice, node.value))


@BOTH
def test_the_shell_is_shell(path: Path) -> None:
    pieces = list(scripts(path))
    assert len(pieces) >= 4
    for piece in pieces:
        done = subprocess.run(["bash", "-n"], input=piece, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{piece}\n{done.stderr}"
        if lint := shutil.which("shellcheck"):
            done = subprocess.run([lint, "-s", "bash", "-"], input=piece, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


@BOTH
def test_every_command_is_understood_and_none_is_missing(path: Path) -> None:
    found = [command for piece in scripts(path) for command in commands(piece)]
    assert not {command: why for command in found if (why := refusal(command))}
    verbs = [command.split()[1] for command in found]
    assert not {"login", "run", "logs", "stop"} - set(verbs)
    assert any("run --locked" in command and "--dry-run" in command for command in found)
    verbs = [command.split()[1] for command in found if "--dry-run" not in command]
    order = [verbs.index(verb) for verb in ("doctor", "verify", "pull", "run", "status", "drift", "logout")]
    assert order == sorted(order) and any("run --locked" in command for command in found)
    assert "NIMCTL_VERIFY: require" in path.read_text()


@BOTH
def test_no_key_is_in_an_argument(path: Path) -> None:
    for piece in scripts(path):
        assert "NGC_API_KEY" not in piece and "--password " not in piece

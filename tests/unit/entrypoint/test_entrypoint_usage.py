"""`-h` and words that mean nothing: what can be asked for is told, and nothing is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.actions.table import NAMES
from entrypoint.actions.usage import is_wanted, text
from entrypoint.settings import VARIABLES

ROOT = Path(__file__).parents[3]


def entrypoint(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entrypoint", *words],
        env={"PYTHONPATH": str(ROOT), "NIMCTL_STATE_DIR": str(place / "state")},
        check=False, capture_output=True, text=True, cwd=place, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["nim-serve", "-h"], ["--dry-run", "--help"]])
def test_help_needs_no_variable_and_starts_nothing(tmp_path, words):
    done = entrypoint(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip("\n") == text()
    assert not (tmp_path / "state").exists()


def test_help_names_every_action_and_only_variables_that_there_are():
    lines = text().splitlines()
    assert all(any(line.split()[:1] == [action] for line in lines) for action in NAMES)
    named = {line.split()[0] for line in lines if line.startswith("  NIM_")}
    assert {"NIM_RECIPE", "NIM_MODEL_PATH", "NIM_CACHE_PATH"} <= named <= {variable.name for variable in VARIABLES}
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("words", [[], ["download-to-cache", "-h"], ["hf://org/name", "-h"], ["--seed", "1", "-h"]])
def test_other_help_is_somebody_elses(words):
    assert not is_wanted(words)


def test_an_unknown_action_names_those_that_there_are(tmp_path):
    done = entrypoint(tmp_path, "download-to-cash")
    assert done.returncode == 2
    assert "error[usage] 'download-to-cash' is neither an action nor a model" in done.stderr
    assert all(action in done.stderr for action in NAMES)

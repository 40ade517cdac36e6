"""`scripts/run_tests.py`: two halves side by side say and end as one pytest would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_tests.py"
LAB = "import pytest\n@pytest.mark.lab\ndef test_lab(): {lab}\ndef test_pure(): {pure}\n"


def folder_of(folder: Path, **bodies: str) -> Path:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  lab: needs it\n  engine: needs it\n")
    (folder / "test_halves.py").write_text(LAB.format(**bodies))
    return folder


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # three times as quick to start
    argv = [sys.executable, str(SCRIPT), *options]
    return subprocess.Popen(argv, cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ran(folder: Path, *options: str) -> tuple[int, list[str]]:
    process = start(folder, *options)
    said = process.communicate(timeout=120)[0]
    return process.returncode, said.splitlines()


def test_each_test_runs_in_one_half_and_both_summaries_come_last(tmp_path: Path) -> None:
    code, lines = ran(folder_of(tmp_path, lab="pass", pure="pass"), "-q")
    assert code == 0
    assert [line[:10] for line in lines[-2:]] == ["engines | ", "others  | "]
    assert all("1 passed, 1 deselected" in line for line in lines[-2:])


@pytest.mark.parametrize("broken", ["lab", "pure"])
def test_one_failure_in_either_fails_all_and_is_named_at_the_end(tmp_path: Path, broken: str) -> None:
    code, lines = ran(folder_of(tmp_path, **{"lab": "pass", "pure": "pass", broken: "assert False"}))
    assert code == 1
    half = {"lab": "engines", "pure": "others"}[broken]
    assert [line for line in lines[-3:] if line.startswith(f"{half:7} | FAILED test_halves.py::test_{broken}")]


def test_a_half_without_tests_is_no_success(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, lab="pass", pure="pass")
    (folder / "test_halves.py").write_text("def test_pure(): pass\n")
    assert ran(folder)[0] == 5


def test_who_chooses_tests_has_one_pytest(tmp_path: Path) -> None:
    code, lines = ran(folder_of(tmp_path, lab="pass", pure="pass"), "test_halves.py")
    assert code == 0
    assert "2 passed" in lines[-1] and not lines[-1].startswith("engines")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(tmp_path: Path, number: signal.Signals) -> None:
    waits = "open('{0}', 'w').write(str(__import__('os').getpid())); __import__('time').sleep(100)"
    folder = folder_of(tmp_path, lab=waits.format("lab"), pure=waits.format("pure"))
    with start(folder) as process:
        halves = [folder / "lab", folder / "pure"]
        until = time.monotonic() + 60
        while not all(half.exists() and half.read_text() for half in halves):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert not [half for half in halves if Path(f"/proc/{half.read_text()}").exists()]

"""`scripts/run_tests.py`: parts side by side say and end as one pytest would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_tests.py"
TESTS = {
    "engines": "tests/faults/test_b.py::test_lab",
    "rest": "tests/faults/test_b.py::test_fault",
    "units": "tests/unit/test_a.py::test_pure",
}


def folder_of(folder: Path, **bodies: str) -> Path:
    """A test for each part, which does what `bodies` says of it."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  lab: needs it\n  engine: needs it\ntestpaths = tests\n")
    written = {"tests/unit/test_a.py": "import pytest\n", "tests/faults/test_b.py": "import pytest\n"}
    for part, test in TESTS.items():
        file, _, name = test.partition("::")
        mark = "@pytest.mark.lab\n" if part == "engines" else ""
        written[file] += f"{mark}def {name}(): {bodies.get(part, 'pass')}\n"
    for file, text in written.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
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


def test_each_test_runs_in_one_part_and_all_summaries_come_last(tmp_path: Path) -> None:
    code, lines = ran(folder_of(tmp_path), "-q")
    assert code == 0
    assert [line[:10] for line in lines[-3:]] == ["engines | ", "rest    | ", "units   | "]
    assert all(line[10:].startswith("1 passed") for line in lines[-3:])


@pytest.mark.parametrize("part", TESTS)
def test_one_failure_in_any_fails_all_and_is_named_at_the_end(tmp_path: Path, part: str) -> None:
    code, lines = ran(folder_of(tmp_path, **{part: "assert False"}))
    assert code == 1
    assert [line for line in lines[-4:] if line.startswith(f"{part:7} | FAILED {TESTS[part]}")]


def test_a_part_without_tests_is_no_success(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "tests/unit/test_a.py").unlink()
    assert ran(folder)[0] == 5


def test_no_unit_test_needs_the_lab() -> None:
    """They run beside the part that switches its host."""
    files = (SCRIPT.parents[1] / "tests/unit").rglob("*.py")
    assert not [str(file) for file in files if "mark.lab" in file.read_text()]


def test_who_chooses_tests_has_one_pytest(tmp_path: Path) -> None:
    code, lines = ran(folder_of(tmp_path), "tests")
    assert code == 0
    assert "3 passed" in lines[-1] and not lines[-1].startswith("units")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(tmp_path: Path, number: signal.Signals) -> None:
    waits = "open('{}', 'w').write(str(__import__('os').getpid())); __import__('time').sleep(100)"
    with start(folder_of(tmp_path, **{part: waits.format(part) for part in TESTS})) as process:
        files = [tmp_path / part for part in TESTS]
        until = time.monotonic() + 60
        while not all(file.exists() and file.read_text() for file in files):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert not [file for file in files if Path(f"/proc/{file.read_text()}").exists()]

"""The end of a step of the build: one time for what it wrote, bytecode that is the same every time."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "images/settle.py"
settle = runpy.run_path(str(SCRIPT), run_name="settle")


def run(since: float, roots: Path, *folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, str(since), str(roots), *map(str, folder)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def a_tree(root: Path) -> Path:
    package = root / "package"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text("NAMES = ('a', 'b')\n\n\ndef say():\n    return {'a', 'b', 'c'}\n")
    (package / "broken.py").write_text("def {{ name }}():\n")
    (package / "tests" / "test_it.py").write_text("x = 1\n")
    for number in range(9):
        (package / f"part{number}.py").write_text(f"import package\n\nVALUE = {number!r}, package.NAMES\n")
    (package / "link").symlink_to("__init__.py")
    return package


def test_what_was_written_has_one_time_and_what_was_there_keeps_its_own(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    time.sleep(0.05)  # the clock of files is that much coarser than the other
    since = time.time()
    time.sleep(0.05)
    package = a_tree(tmp_path)
    before = old.stat().st_mtime
    run(since, tmp_path, tmp_path)
    for path in (package, package / "__init__.py", package / "link", package / "tests", tmp_path):
        assert os.lstat(path).st_mtime == settle["TIME"], path
    assert old.stat().st_mtime == before


def test_the_same_sources_give_the_same_bytecode_and_cold_ones_none(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        package = a_tree(tmp_path / name)
        run(0, package, tmp_path / name)
        compiled = sorted(package.rglob("*.pyc"))
        assert [path.name.partition(".")[0] for path in compiled] == ["__init__", *(f"part{n}" for n in range(9))]
        flags = {path.read_bytes()[4:8] for path in compiled}
        assert flags == {b"\x01\0\0\0"}  # by hash, unchecked
        # the path of a source is in its bytecode, and is the same in every build
        bodies = [path.read_bytes().replace(str(tmp_path / name).encode(), b"") for path in compiled]
        found.append([hashlib.sha256(body).hexdigest() for body in bodies])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("path", "is_cold"),
    [
        ("sympy/physics/units/systems/si.py", True),
        ("numpy/lib/tests/test_io.py", True),
        ("transformers/models/bert/modeling_bert.py", True),
        ("transformers/models/auto/modeling_auto.py", False),
        ("vllm/model_executor/models/kimi_k25_vit.py", False),
        ("vllm/v1/core/sched/scheduler.py", False),
        ("torch/testing/__init__.py", False),
    ],
)
def test_cold_is_what_no_server_imports(path: str, is_cold: bool) -> None:
    lines = (ROOT / "images/cold.txt").read_text().splitlines()
    assert settle["cold"](path, [line for line in lines if line and not line.startswith("#")]) is is_cold


def test_of_pips_report_nothing_stays_but_names_and_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, kept = tmp_path / "pip-report.json", tmp_path / "etc" / "wheels.json"
    install = {
        "metadata": {"name": "Some_Thing", "version": "1.2"},
        "download_info": {
            "url": "https://me:canary@mirror.example/x.whl",
            "archive_info": {"hash": "sha256=" + "ab" * 32},
        },
    }
    report.write_text(json.dumps({"install": [install]}))
    keep = settle["keep_reports"]
    monkeypatch.setitem(keep.__globals__, "REPORTS", tmp_path)
    monkeypatch.setitem(keep.__globals__, "KEPT", kept)
    keep()
    assert json.loads(kept.read_text()) == {"some-thing": {"version": "1.2", "sha256": "ab" * 32}}
    assert not report.exists() and "canary" not in kept.read_text()

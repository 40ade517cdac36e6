"""FlashInfer's compiled kernels in the CUDA image: from local wheels, from FlashInfer's index, or not at all."""

import importlib.metadata
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "images/cuda/kernels.py"
VERSION = "0.7.0.post1"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Calls the script with a FlashInfer of VERSION installed; what it would have run, and its exit code."""
    ran = []
    monkeypatch.setattr(importlib.metadata, "version", lambda name: VERSION)

    def calling(wanted, code=0):
        def record(argv, env, check):
            ran.append((argv, env))
            return subprocess.CompletedProcess(argv, code)

        monkeypatch.setattr(subprocess, "run", record)
        monkeypatch.setattr(sys, "argv", ["kernels.py", wanted, str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.value.code, ran

    return calling


def test_flashinfer_installs_its_own_for_the_gpus_of_data_centres(run):
    code, ran = run("auto")
    assert code == 0
    assert [argv[1:4] for argv, _ in ran] == [
        ["-m", "flashinfer", "install-cubin-wheel"],
        ["-m", "flashinfer", "install-jit-cache-wheel"],
    ]
    assert "sm90a" in ran[1][0] and "sm100a" in ran[1][0]
    assert all(env["FLASHINFER_DISABLE_VERSION_CHECK"] == "1" for _, env in ran)


def test_an_index_that_cannot_be_reached_ends_a_build_only_where_they_are_required(run, capsys):
    assert run("auto", code=1)[0] == 0
    assert "compiled at the first start" in capsys.readouterr().err
    assert run("required", code=1)[0] == 1


def test_wheels_of_the_builder_need_no_index(run, tmp_path):
    names = [
        f"flashinfer_cubin-{VERSION}-py3-none-any.whl",
        f"flashinfer_jit_cache-{VERSION}+cu130-cp39-abi3-manylinux_2_28_x86_64.whl",
        f"flashinfer_jit_cache_sm90a-{VERSION}+cu130-cp39-abi3-manylinux_2_28_x86_64.whl",
    ]
    for name in (*names, "flashinfer_cubin-0.6.13-py3-none-any.whl", "torch-2.wheel.whl"):
        (tmp_path / name).write_text("")
    code, ran = run("required")
    assert code == 0 and len(ran) == 1
    assert "--no-index" in ran[0][0]
    assert [Path(word).name for word in ran[0][0] if word.endswith(".whl")] == names


def test_half_of_the_wheels_are_none(run, tmp_path):
    (tmp_path / f"flashinfer_cubin-{VERSION}-py3-none-any.whl").write_text("")
    assert len(run("auto")[1]) == 2


def test_they_can_be_left_out(run):
    assert run("off") == (0, [])
    assert run("nonsense")[0] == 1


def test_the_dockerfile_and_the_bake_file_agree():
    assert "ARG KERNELS=auto" in (ROOT / "images/Dockerfile").read_text()
    assert "KERNELS = NIMCTL_BUILD_KERNELS" in (ROOT / "images/docker-bake.hcl").read_text()

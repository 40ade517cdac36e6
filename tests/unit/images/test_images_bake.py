"""The command line and the variables that `docker buildx bake` gets."""

import re
import subprocess
from pathlib import Path

import pytest

from nimctl import __version__, images
from nimctl.core.errors import NimctlError
from nimctl.images.bake import bake_command, bake_variables
from nimctl.images.source import Source, origin

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Source(root=ROOT, recipe=ROOT / "images")


def test_the_local_tag_names_both_versions() -> None:
    assert images.local_tag("cuda") == f"nimctl/cuda:{__version__}-vllm0.32.0"


def test_an_unknown_target_is_a_usage_error() -> None:
    with pytest.raises(NimctlError) as caught:
        images.local_tag("tpu")
    assert caught.value.id == "usage"


def test_the_command_loads_the_image_unless_it_is_pushed(tmp_path: Path) -> None:
    loaded = bake_command("cpu", source=SOURCE, metadata=tmp_path / "m.json")
    pushed = bake_command("cuda", source=SOURCE, metadata=tmp_path / "m.json", push=True)
    assert loaded[:3] == ["docker", "buildx", "bake"]
    assert "--load" in loaded and "--push" not in loaded and loaded[-1] == "cpu"
    assert "--push" in pushed and "--load" not in pushed and pushed[-1] == "cuda"


def test_what_is_not_given_is_left_to_the_recipe(tmp_path: Path) -> None:
    plain = bake_variables(source=SOURCE, tag="t", env={})
    assert "NIMCTL_BUILD_BASE" not in plain  # the recipe's default, or the user's own variable
    assert (plain["NIMCTL_BUILD_WHEELS"], plain["NIMCTL_BUILD_CA"], plain["NIMCTL_BUILD_PLATFORMS"]) == ("", "", "")
    full = bake_variables(
        source=SOURCE,
        tag="t",
        env={},
        platforms=["linux/amd64", "linux/arm64"],
        base="debian:x",
        wheels=tmp_path,
        ca=tmp_path,
    )
    assert full["NIMCTL_BUILD_PLATFORMS"] == "linux/amd64,linux/arm64"
    assert full["NIMCTL_BUILD_BASE"] == "debian:x"
    assert full["NIMCTL_BUILD_WHEELS"] == str(tmp_path)


def test_every_variable_is_known_to_the_recipe() -> None:
    recipe = (ROOT / "images/docker-bake.hcl").read_text()
    known = set(re.findall(r'variable "(\w+)"', recipe))
    assert set(bake_variables(source=SOURCE, tag="t", env={}, base="b", snapshot="s")) <= known


def test_the_date_is_that_of_the_commit_unless_one_is_given(tmp_path: Path) -> None:
    committed = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()
    assert bake_variables(source=SOURCE, tag="t", env={})["SOURCE_DATE_EPOCH"] == committed
    assert bake_variables(source=SOURCE, tag="t", env={"SOURCE_DATE_EPOCH": "17"})["SOURCE_DATE_EPOCH"] == "17"
    installed = Source(root=tmp_path, recipe=tmp_path)  # no checkout, no commit: the time of every file in an image
    assert bake_variables(source=installed, tag="t", env={})["SOURCE_DATE_EPOCH"] == "946684800"
    assert "TIME = 946684800" in (ROOT / "images/settle.py").read_text()


def test_a_date_that_is_no_number_is_refused_before_the_build() -> None:
    with pytest.raises(NimctlError) as raised:
        bake_variables(source=SOURCE, tag="t", env={"SOURCE_DATE_EPOCH": "today"})
    assert raised.value.id == "usage" and "SOURCE_DATE_EPOCH" in raised.value.message


def test_the_source_is_told_without_whoever_may_read_it(tmp_path: Path) -> None:
    for word in (["init", "-q"], ["remote", "add", "origin", "https://me:canary@git.example:8443/a/nimctl.git"]):
        subprocess.run(["git", *word], cwd=tmp_path, check=True, timeout=20)
    assert origin(tmp_path) == "https://git.example:8443/a/nimctl"
    subprocess.run(["git", "remote", "set-url", "origin", "git@git.example:a/b"], cwd=tmp_path, check=True, timeout=20)
    assert origin(tmp_path) is None


def test_a_compression_is_an_output_of_its_own(tmp_path: Path) -> None:
    argv = bake_command("cpu", source=SOURCE, metadata=tmp_path / "m", push=True, compression="zstd")
    output = argv[argv.index("--set") + 1]
    assert output.startswith("cpu.output=type=image,push=true") and "compression=zstd" in output
    assert "--push" not in argv and "--load" not in argv

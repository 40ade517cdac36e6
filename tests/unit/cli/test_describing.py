"""What describes a built image: files, and where it may be pushed."""

import json
from pathlib import Path

import pytest

from nimctl.cli import describing
from nimctl.core.errors import NimctlError
from nimctl.images import Build
from nimctl.render import Output


def built(*platforms: str) -> Build:
    documents = {platform: {"components": [], "of": platform} for platform in platforms}
    return Build("x:1", "sha256:" + "a" * 64, "sha256:" + "b" * 64, (), (), documents, documents)


def test_without_a_push_the_statement_is_about_what_docker_holds(tmp_path: Path) -> None:
    out = Output.choose("build", as_json=True, quiet=True)
    described = describing.describe(built(""), None, out)
    assert described.pushed == () and described.digest is None
    describing.write(described, sbom=tmp_path / "s.json", provenance=tmp_path / "p.json")
    assert json.loads((tmp_path / "s.json").read_text())["components"] == []
    assert json.loads((tmp_path / "p.json").read_text())["subject"][0]["digest"] == {"sha256": "b" * 64}


def test_each_platform_has_files_of_its_own(tmp_path: Path) -> None:
    out = Output.choose("build", as_json=True, quiet=True)
    described = describing.describe(built("linux/amd64", "linux/arm64"), None, out)
    describing.write(described, sbom=tmp_path / "s.json", provenance=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.linux-amd64.json", "s.linux-arm64.json"]


def test_a_push_needs_a_registry_and_a_file_its_folder(tmp_path: Path) -> None:
    for refused in (
        lambda: describing.destination("nimctl/cpu:1"),
        lambda: describing.require_writable(tmp_path / "no" / "s.json"),
        lambda: describing.require_writable(None, tmp_path),
    ):
        with pytest.raises(NimctlError) as caught:
            refused()
        assert caught.value.id == "usage"
    describing.require_writable(tmp_path / "s.json", None)

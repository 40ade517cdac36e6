"""What machines are called as platforms of images."""

import platform

import pytest

from nimctl.core.platforms import architecture_of, own_platform


@pytest.mark.parametrize(
    ("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", "riscv64")]
)
def test_a_machine_has_the_architecture_of_its_images(
    machine: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert architecture_of(machine) == architecture
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert own_platform() == f"linux/{architecture}"

"""Settings: which source wins, and that each value knows where it came from."""

from pathlib import Path

import pytest

from nimctl.cli.config import load
from nimctl.core.errors import NimctlError


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and configuration home, and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("MODEL", "PORT", "CACHE", "GPUS", "RUNTIME", "HOST", "IMAGES_REGISTRY", "IMAGES_CUDA", "IMAGES_CPU"):
        monkeypatch.delenv(f"NIMCTL_{name}", raising=False)
    return tmp_path


def write_user_file(folder: Path, text: str) -> Path:
    path = folder / "config" / "nimctl" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_defaults_know_that_they_are_defaults() -> None:
    config = load({"port": None})
    assert (config.number("port"), config.origin("port")) == (8000, "default")
    assert config.text("host") == "127.0.0.1"  # loopback unless asked
    assert config.text("model") == "kimi-k2.5"
    assert config.cache == Path.home() / ".cache" / "nim"


def test_each_source_beats_the_one_before(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write_user_file(folders, "port: 1001\nimages: {registry: example.test/nim}\n")
    assert (load({}).number("port"), load({}).origin("port")) == (1001, str(user))
    assert load({}).text("images.registry") == "example.test/nim"
    Path("nimctl.yaml").write_text("port: 1002\n")
    assert (load({}).number("port"), load({}).origin("port")) == (1002, "nimctl.yaml")
    monkeypatch.setenv("NIMCTL_PORT", "1003")
    assert (load({}).number("port"), load({}).origin("port")) == (1003, "NIMCTL_PORT")
    assert (load({"port": 1004}).number("port"), load({"port": 1004}).origin("port")) == (1004, "--port")


def test_an_empty_variable_and_an_empty_file_say_nothing(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_user_file(folders, "")
    monkeypatch.setenv("NIMCTL_PORT", "")
    assert load({}).number("port") == 8000


def test_a_number_that_is_none_names_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMCTL_PORT", "eight")
    with pytest.raises(NimctlError) as caught:
        load({}).number("port")
    assert caught.value.id == "config-invalid" and "NIMCTL_PORT" in caught.value.cause

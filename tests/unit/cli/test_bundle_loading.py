"""What `nimctl bundle load` takes of a bundle that others made, and what it refuses before anything is in place."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nimctl.bundle import model
from nimctl.cli import config as configuration
from nimctl.cli import unbundling
from nimctl.core.errors import NimctlError
from nimctl.launch.docker import Engine
from nimctl.render import Output
from nimctl.trust import keys
from tests.lib import bundles

CODE = "caches/abc/kernel.so"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, whose Docker does not answer."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "NIMCTL_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    monkeypatch.delenv("NIMCTL_VERIFY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, model.Bundle]:
    folder = tmp_path_factory.mktemp("made")
    return folder, bundles.pack(folder)


@pytest.fixture
def packed(here: Path, made: tuple[Path, model.Bundle]) -> model.Bundle:
    shutil.copytree(made[0], here / "b")
    return made[1]


def with_code(here: Path, packed: model.Bundle, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Have the folder hold a compile cache alone, under sums that fit."""
    (here / "b" / CODE).parent.mkdir(parents=True)
    (here / "b" / CODE).write_bytes(b"code")
    entry = model.Entry(CODE, 4, hashlib.sha256(b"code").hexdigest())
    cache = model.CompileCache("abc", (CODE,))
    bundle = replace(packed, files=(entry,), image=None, weights=None, caches=(cache,))
    bundles.rewrite(here / "b", bundle, sign)


def load(here: Path, policy: str = "warn", *, key: Path | None = None, to: Path | None = None, **more: bool) -> None:
    config = configuration.load({"verify": policy})
    unbundling.load([here / "b"], config, Output.choose("bundle-report"), key=key, to=to, **more)


def refused(here: Path, to: Path | None = None) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        load(here, to=to)
    return caught.value


def is_code_there(here: Path) -> bool:
    return (here / "NIMCTL_CACHE/engine" / str(os.geteuid()) / "abc/kernel.so").exists()


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("policy", ["warn", "require"])
def test_code_that_nobody_signed_is_left_out(
    here: Path, packed: model.Bundle, capsys: pytest.CaptureFixture[str], policy: str, asked: bool
) -> None:
    with_code(here, packed)
    load(here, policy, caches=asked)
    assert is_code_there(here) == (asked and policy == "warn")
    assert ("abc is not loaded" in capsys.readouterr().out) != is_code_there(here)


def test_code_that_a_trusted_key_signed_is_loaded(here: Path, packed: model.Bundle) -> None:
    private, public = keys.generate(here / "mine", None)
    with_code(here, packed, keys.read_private(private, None).sign)
    load(here, "require", key=public)
    assert is_code_there(here)


def test_an_image_for_another_platform_is_refused_first(
    here: Path, packed: model.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SimpleNamespace(platform="linux/arm64")
    monkeypatch.setattr(Engine, "connect", lambda: engine)
    error = refused(here)
    assert (error.id, "linux/amd64" in error.cause) == ("platform-missing", True)
    assert not (here / "NIMCTL_CACHE").exists()


def test_a_folder_for_weights_that_have_an_address_is_not_ignored(here: Path, packed: model.Bundle) -> None:
    assert refused(here, here / "to").id == "usage"

"""What `nimctl bundle load` takes of a bundle that others made, and what it refuses before anything is in place."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nimctl.bundle import image as layout
from nimctl.bundle import model, weights
from nimctl.cli import config as configuration
from nimctl.cli.bundles import loading
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots
from nimctl.core.fetch.sources.checksums import MANIFEST
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


def write(here: Path, bundle: model.Bundle, contents: dict[str, bytes] | None = None) -> None:
    """Have the folder hold `bundle` with these files, under sums that fit, as somebody who tampers would."""
    entries = {entry.path: entry for entry in bundle.files}
    for path, content in (contents or {}).items():
        place = here / "b" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        entries[path] = model.Entry(path, len(content), hashlib.sha256(content).hexdigest())
    bundles.rewrite(here / "b", replace(bundle, files=tuple(entries[path] for path in sorted(entries))))


def with_code(here: Path, packed: model.Bundle, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Have the folder hold a compile cache alone, under sums that fit."""
    (here / "b" / CODE).parent.mkdir(parents=True)
    (here / "b" / CODE).write_bytes(b"code")
    entry = model.Entry(CODE, 4, hashlib.sha256(b"code").hexdigest())
    cache = model.CompileCache("abc", (CODE,))
    bundle = replace(packed, files=(entry,), image=None, weights=None, caches=(cache,))
    bundles.rewrite(here / "b", bundle, sign)


def load(here: Path, policy: str = "warn", *, key: Path | None = None, to: Path | None = None) -> None:
    config = configuration.load({"verify": policy})
    loading.load([here / "b"], config, Output.choose("bundle-report"), key=key, to=to)


def refused(here: Path, policy: str = "warn", to: Path | None = None) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        load(here, policy, to=to)
    return caught.value


def is_no_bundle(here: Path) -> bool:
    """Whether both verbs refuse it, and nothing is in place."""
    with pytest.raises(NimctlError) as caught:
        loading.verify([here / "b"], None, configuration.load({}), Output.choose("bundle-report", quiet=True))
    return {caught.value.id, refused(here).id} == {"bundle-invalid"} and not (here / "NIMCTL_CACHE").exists()


def is_code_there(here: Path) -> bool:
    return (here / "NIMCTL_CACHE/engine" / str(os.geteuid()) / "abc/kernel.so").exists()


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("policy", ["warn", "require"])
def test_code_that_nobody_signed_is_left_out(
    here: Path, packed: model.Bundle, capsys: pytest.CaptureFixture[str], policy: str, asked: bool
) -> None:
    with_code(here, packed)
    out = Output.choose("bundle-report", as_json=True)
    loading.load([here / "b"], configuration.load({"verify": policy}), out, key=None, to=None, caches=asked)
    said = capsys.readouterr()
    assert is_code_there(here) == (asked and policy == "warn")
    assert ("abc is not loaded" in said.err) != is_code_there(here)
    assert json.loads(said.out)["left_out"] == ([] if is_code_there(here) else ["abc"])


def test_code_that_a_trusted_key_signed_is_loaded(here: Path, packed: model.Bundle) -> None:
    private, public = keys.generate(here / "mine", None)
    with_code(here, packed, keys.read_private(private, None).sign)
    load(here, "require", key=public)
    assert is_code_there(here)


def test_the_name_of_an_image_is_the_one_that_was_judged(here: Path, packed: model.Bundle) -> None:
    manifest = bundles.image_blobs()[0]
    for name in ("nvcr.io/nim/other:1", "registry.test/org/tiny:2", None):
        write(here, packed, layout.documents(name, manifest))
        assert is_no_bundle(here)


def test_an_image_is_for_the_platform_of_its_configuration(here: Path, packed: model.Bundle) -> None:
    assert packed.image
    write(here, replace(packed, image=replace(packed.image, platform="linux/arm64")))
    assert is_no_bundle(here)


def test_an_image_for_another_platform_is_refused_first(
    here: Path, packed: model.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SimpleNamespace(platform="linux/arm64")
    monkeypatch.setattr(Engine, "connect", lambda: engine)
    error = refused(here)
    assert (error.id, "linux/amd64" in error.cause) == ("platform-missing", True)
    assert not (here / "NIMCTL_CACHE").exists()


def test_a_folder_for_weights_that_have_an_address_is_not_ignored(here: Path, packed: model.Bundle) -> None:
    assert refused(here, to=here / "to").id == "usage"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "hf://harmless/toy"},
        {"repo": "moonshotai/Kimi-K2.5"},
        {"source": "hf://moonshotai/Kimi-K2.5", "repo": "moonshotai/Kimi-K2.5"},  # the manifest says another
        {"part": "ngc"},
        {"source": "folder", "refs": ()},
        {"source": "/etc"},
        {"source": "::::"},
    ],
)
def test_weights_go_nowhere_but_where_their_source_belongs(
    here: Path, packed: model.Bundle, changes: dict[str, Any]
) -> None:
    assert packed.weights
    write(here, replace(packed, weights=replace(packed.weights, **changes)))
    assert is_no_bundle(here)


def test_weights_of_a_folder_get_no_place_of_others(here: Path, packed: model.Bundle) -> None:
    manifest = replace(bundles.manifest_of(), source="folder")
    contents = {f"weights/{MANIFEST}": weights.of_manifest(manifest)}
    assert packed.weights
    for repo, refs in (("org/tiny", ()), ("local/tiny", ("main",))):
        write(here, replace(packed, weights=replace(packed.weights, source="folder", repo=repo, refs=refs)), contents)
        assert is_no_bundle(here)


def test_weights_that_are_refused_get_no_name(here: Path, packed: model.Bundle) -> None:
    public = keys.generate(here / "mine", None)[1]
    rules = here / "XDG_CONFIG_HOME/nimctl/config.yaml"
    rules.parent.mkdir(parents=True)
    rules.write_text(f"trust: [{{weights: 'hf://org/**', keys: {public}}}]\n")
    files = tuple(entry for entry in packed.files if not entry.path.startswith("image/"))
    write(here, replace(packed, image=None, files=files))
    assert refused(here, "require").id == "signature-missing"
    repo, revision = CachePaths(here / "NIMCTL_CACHE").repo("org/tiny"), bundles.manifest_of().revision
    assert snapshots.revision_at(repo, "main") is None
    assert snapshots.complete(repo, revision) is None
    load(here)
    assert snapshots.revision_at(repo, "main") == revision
    assert snapshots.complete(repo, revision)


@pytest.mark.parametrize("name", ["image/index.json", "image/manifest.json", f"weights/{MANIFEST}"])
@pytest.mark.parametrize("content", [b"{", b"[" * 200_000, b"7", b'{"manifests": []}'])
def test_documents_that_are_none_are_refused(here: Path, packed: model.Bundle, name: str, content: bytes) -> None:
    write(here, packed, {name: content})
    assert is_no_bundle(here)


@pytest.mark.parametrize("content", [b"{", b'{"a":' * 50_000, b"[]", b'{"config": {"digest": 1}, "layers": 2}'])
def test_a_manifest_that_is_none_is_refused(here: Path, packed: model.Bundle, content: bytes) -> None:
    assert packed.image
    digest = bundles.digest(content)
    image = replace(packed.image, digest=None, manifest=digest)
    write(here, replace(packed, image=image), {layout.blob_path(digest): content})
    assert is_no_bundle(here)


def test_folders_without_end_are_refused(here: Path, packed: model.Bundle) -> None:
    (here / "b" / "/".join(["d"] * 300)).mkdir(parents=True)
    assert is_no_bundle(here)

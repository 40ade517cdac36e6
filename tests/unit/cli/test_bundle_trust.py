"""What a bundle says of itself is believed nowhere: names, places, locks, platforms and code in it."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nimctl.bundle import model
from nimctl.cli import config as configuration
from nimctl.cli.bundles import loading, packing
from nimctl.cli.bundles import proof as bundled_proof
from nimctl.cli.proofs.kept import keep, kept
from nimctl.core.errors import NimctlError
from nimctl.core.signatures import Material, write_materials
from nimctl.lock import writing
from nimctl.lock.model import Lock, LockedContainer, LockedEngine, LockedGpus, LockedImage, LockedRecipe, LockedWeights
from nimctl.render import Output
from nimctl.trust import keys
from nimctl.trust.signing import sign_image
from tests.lib import bundles
from tests.lib.bundles import NAME, digest

Change = Callable[[model.Bundle], model.Bundle]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NIMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker")
    monkeypatch.chdir(tmp_path)
    bundles.pack(tmp_path / "b")
    return tmp_path / "b"


def quiet() -> Output:
    return Output.choose("bundle-report", quiet=True)


def changed(folder: Path, change: Change | None = None, files: dict[str, bytes] | None = None) -> model.Bundle:
    """Give the bundle other files and another document, with sums that fit, as somebody who tampers would."""
    bundle = model.from_bytes((folder / model.NAME).read_bytes())
    entries = {entry.path: entry for entry in bundle.files}
    for path, content in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        entries[path] = model.Entry(path, len(content), digest(content).removeprefix("sha256:"))
    bundle = replace(bundle, files=tuple(entries[path] for path in sorted(entries)))
    bundle = change(bundle) if change else bundle
    bundles.rewrite(folder, bundle)
    return bundle


def verify(folder: Path, policy: str = "warn") -> None:
    loading.verify([folder], None, configuration.load({"verify": policy}), quiet())


def refused(act: Callable[..., None], *arguments: object) -> str:
    with pytest.raises(NimctlError) as caught:
        act(*arguments)
    return caught.value.id


def rule(folder: Path, text: str) -> None:
    place = folder.parent / "config/nimctl/config.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.mark.parametrize("reference", ["NOT A REFERENCE", "registry.test/org/tiny:2"])
def test_another_name_in_the_document_is_refused(folder: Path, reference: str) -> None:
    changed(folder, lambda b: replace(b, image=replace(b.image, reference=reference)))  # type: ignore[type-var]
    assert refused(verify, folder) == "bundle-invalid"


def test_a_check_keeps_nothing_and_a_load_nothing_worse(folder: Path) -> None:
    private, public = keys.generate(folder.parent / "mine", None)
    other, _ = keys.generate(folder.parent / "other", None)
    rule(folder, f"trust: [{{images: 'registry.test/**', keys: {public}}}]\n")
    bundle = model.from_bytes((folder / model.NAME).read_bytes())
    assert bundle.image
    image = bundled_proof.identity(bundle.image)
    settings = configuration.load({})
    good = sign_image(keys.read_private(private, None), "registry.test/org/tiny", bundle.image.manifest)
    bad = sign_image(keys.read_private(other, None), "registry.test/org/tiny", bundle.image.manifest)
    keep(image, good, ())
    verify(folder)
    for carried in ((), bad):
        changed(folder, *_with_signatures(folder, carried))
        shelf = loading.Shelf([folder])
        bundled_proof.prove_image(shelf, settings, quiet(), signed=None, keep=True)
        assert (kept(image) or ((), ()))[0] == good
    shutil.rmtree(folder.parent / "state")
    bundled_proof.prove_image(shelf, settings, quiet(), signed=None, keep=True)
    assert kept(image) is None  # bad ones are nothing that a start should find
    changed(folder, *_with_signatures(folder, good))
    verify(folder)
    assert kept(image) is None
    bundled_proof.prove_image(loading.Shelf([folder]), settings, quiet(), signed=None, keep=True)
    assert (kept(image) or ((), ()))[0] == good


def _with_signatures(folder: Path, materials: Sequence[Material]) -> tuple[Change, dict[str, bytes]]:
    place = folder.parent / "written"
    shutil.rmtree(place, ignore_errors=True)
    files = {f"trust/{path.name}": path.read_bytes() for path in write_materials(place, materials)}
    return lambda b: replace(b, signatures=tuple(sorted(files))), files


def lock_of(bundle: model.Bundle) -> Lock:
    image, weights = bundle.image, bundle.weights
    assert image and weights
    files = bundles.manifest_of().files
    locked = LockedImage(NAME, image.platform, image.digest, image.config, {image.platform: image.manifest})
    return Lock("tiny", "1", locked, LockedRecipe("tiny", "0" * 64), LockedGpus(0, None), LockedEngine(),
                LockedContainer(), LockedWeights(weights.source, weights.revision, weights.size, files))  # fmt: skip


def test_the_lock_is_of_what_lies_beside_it(folder: Path) -> None:
    bundle = model.from_bytes((folder / model.NAME).read_bytes())
    lock = lock_of(bundle)
    assert lock.weights
    for wrong in (
        replace(lock, image=replace(lock.image, reference="nimctl/cpu:1")),
        replace(lock, image=replace(lock.image, digest="sha256:" + "1" * 64)),
        replace(lock, image=replace(lock.image, config="sha256:" + "1" * 64)),
        replace(lock, image=replace(lock.image, manifests={"linux/amd64": "sha256:" + "1" * 64})),
        replace(lock, weights=replace(lock.weights, revision="b" * 40)),
        replace(lock, weights=replace(lock.weights, bytes=lock.weights.files[0].size, files=lock.weights.files[:1])),
    ):
        changed(folder, lambda b: replace(b, lock=model.LOCK), {model.LOCK: writing.write(wrong).encode()})
        assert refused(verify, folder) == "bundle-invalid"
    changed(folder, lambda b: replace(b, lock=model.LOCK), {model.LOCK: writing.write(lock).encode()})
    verify(folder)


def test_the_key_of_a_bundle_is_read_as_every_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys.generate(tmp_path / "mine", None)
    monkeypatch.setenv("NIMCTL_SIGN_PASSPHRASE", "not needed")
    key = packing._signer(private)
    assert key is not None
    assert keys.read_public(public).signed(key.sign(b"data"), b"data")

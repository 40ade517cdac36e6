"""`nimctl bundle` step by step, in this process: a registry on loopback, no Docker."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimctl.bundle import model
from nimctl.bundle.shelf import Shelf
from nimctl.cli import config as configuration
from nimctl.cli.bundles import caches as bundled_caches
from nimctl.cli.bundles import loading, packing
from nimctl.cli.bundles import lock as bundled_lock
from nimctl.cli.bundles import weights as bundled_weights
from nimctl.cli.bundles.asked import Asked, size_of
from nimctl.cli.config import Config
from nimctl.core.cache import CachePaths, held
from nimctl.core.errors import NimctlError
from nimctl.core.signatures import write_materials
from nimctl.lock import reading
from nimctl.lock.model import Lock, LockedContainer, LockedEngine, LockedGpus, LockedImage, LockedRecipe
from nimctl.render import Output
from nimctl.trust import keys
from nimctl.trust.signing import sign_image
from tests.lib import bundles
from tests.lib.checkpoints import write_folder
from tests.lib.little_registry import LittleRegistry, little_registry
from tests.lib.remote_images import Shelf as Content
from tests.lib.remote_images import digest, make_image

LAYERS = (b"one" * 1000, os.urandom(3_000_000))
AMD, ARM = make_image("linux/amd64", LAYERS), make_image("linux/arm64")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LittleRegistry]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("NIMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with little_registry() as running:
        content = Content()
        content.put("1", AMD, ARM)
        running.content = content.content
        yield running


def create(folder: Path, registry: LittleRegistry, **more: Any) -> model.Bundle:
    asked = Asked(folder, f"{registry.address}/open/tiny:1", platform="linux/amd64")
    packing.create(replace(asked, **more), settings(), quiet())
    return Shelf([folder]).bundle


def settings() -> Config:
    return configuration.load({})


def quiet() -> Output:
    return Output.choose("bundle-report", quiet=True)


def verify(folder: Path, key: Path | None = None) -> None:
    loading.verify([folder], key, settings(), quiet())


def refused(folder: Path, key: Path | None = None) -> str:
    with pytest.raises(NimctlError) as caught:
        verify(folder, key)
    return caught.value.id


def test_the_registry_s_own_bytes_are_carried_for_one_platform(tmp_path: Path, registry: LittleRegistry) -> None:
    bundle = create(tmp_path / "b", registry)
    assert bundle.image
    assert (bundle.image.manifest, bundle.image.config) == (digest(AMD.manifest), digest(AMD.config))
    index = registry.content["1"][1]
    assert bundle.image.digest == digest(index)
    blobs = {path.name for path in (tmp_path / "b/image/blobs/sha256").iterdir()}
    wanted = (index, AMD.manifest, AMD.config, *LAYERS)
    assert blobs == {digest(content).removeprefix("sha256:") for content in wanted}
    assert json.loads((tmp_path / "b/image/manifest.json").read_bytes())[0]["RepoTags"] == [
        f"{registry.address}/open/tiny:1"
    ]
    verify(tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b/image").rglob("*") if path.is_file()}
    create(tmp_path / "b", registry)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "b/.nimctl-partial").exists()


def test_an_image_that_is_no_longer_the_same_replaces_the_other(tmp_path: Path, registry: LittleRegistry) -> None:
    create(tmp_path / "b", registry)
    content = Content()
    content.put("1", make_image("linux/amd64", (LAYERS[1], b"new")))
    registry.content = content.content
    create(tmp_path / "b", registry)
    assert not (tmp_path / "b/image/blobs/sha256" / digest(LAYERS[0]).removeprefix("sha256:")).exists()
    verify(tmp_path / "b")


def test_a_changed_blob_ends_it_and_the_next_run_mends_it(tmp_path: Path, registry: LittleRegistry) -> None:
    kind, body = registry.content[digest(LAYERS[1])]
    registry.content[digest(LAYERS[1])] = kind, body[:-1] + bytes([body[-1] ^ 1])
    with pytest.raises(NimctlError) as caught:
        create(tmp_path / "b", registry)
    assert (caught.value.id, caught.value.exit_code) == ("image-tampered", 5)
    assert not (tmp_path / "b/image/blobs/sha256" / digest(LAYERS[1]).removeprefix("sha256:")).exists()
    assert refused(tmp_path / "b") == "bundle-incomplete"
    registry.content[digest(LAYERS[1])] = kind, body
    create(tmp_path / "b", registry, split=2**20, model=None)  # the folder knows what it was begun for
    verify(tmp_path / "b")
    assert create(tmp_path / "b", registry, model=None).model == f"{registry.address}/open/tiny:1"


def test_a_signed_bundle_proves_whose_it_is(tmp_path: Path, registry: LittleRegistry) -> None:
    private, public = keys.generate(tmp_path / "mine", None)
    _, other = keys.generate(tmp_path / "other", None)
    create(tmp_path / "b", registry, sign_key=private)
    verify(tmp_path / "b", public)
    assert refused(tmp_path / "b", other) == "signature-invalid"
    (tmp_path / "b/bundle.sig").write_bytes(b"bm8=\n")
    assert refused(tmp_path / "b") == "bundle-damaged"
    create(tmp_path / "b", registry)
    assert refused(tmp_path / "b", public) == "signature-missing"


def test_signatures_and_the_keys_of_the_rules_come_along(
    tmp_path: Path, registry: LittleRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys.generate(tmp_path / "mine", None)
    made = sign_image(keys.read_private(private, None), f"{registry.address}/open/tiny", digest(AMD.manifest))
    monkeypatch.setattr("nimctl.registry.artifacts.signatures_of", lambda *_: made)
    rules = f"trust: [{{images: '{registry.address}/**', keys: {public}}}]\nverify: require\n"
    (tmp_path / "nimctl.yaml").write_text(rules)
    bundle = create(tmp_path / "b", registry)
    assert [Path(path).name for path in bundle.keys] == [f"01-{public.name}"]
    assert len(bundle.signatures) == 3
    assert packing.summary(bundle)["signatures"] == 2
    registry.content.clear()
    registry.closing.set()
    verify(tmp_path / "b")  # by the far host's rules, and nobody is asked
    other = keys.generate(tmp_path / "other", None)[1]
    (tmp_path / "nimctl.yaml").write_text(rules.replace(str(public), str(other)))
    assert refused(tmp_path / "b") == "signature-invalid"


def test_what_the_far_host_would_refuse_is_not_fetched(tmp_path: Path, registry: LittleRegistry) -> None:
    public = keys.generate(tmp_path / "mine", None)[1]
    (tmp_path / "nimctl.yaml").write_text(
        f"trust: [{{images: '{registry.address}/**', keys: {public}}}]\nverify: require\n"
    )
    with pytest.raises(NimctlError) as caught:
        create(tmp_path / "b", registry)
    assert caught.value.id == "signature-missing"
    assert not (tmp_path / "b/image").exists()


def test_weights_of_a_folder_are_carried_with_digests(tmp_path: Path, registry: LittleRegistry) -> None:
    checkpoint = write_folder(tmp_path / "checkpoint")
    sizes = {"num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4, "hidden_size": 64}
    (checkpoint / "config.json").write_text(json.dumps({"architectures": ["Tiny"], "vocab_size": 100, **sizes}))
    reference = f"{registry.address}/open/tiny:1"
    bundle = create(tmp_path / "b", registry, model=str(checkpoint), image=reference)
    assert bundle.weights
    assert (bundle.weights.source, bundle.weights.repo) == ("folder", "local/checkpoint")
    verify(tmp_path / "b")
    with pytest.raises(NimctlError) as caught:
        loading.load([tmp_path / "b"], settings(), quiet(), key=None, to=None)
    assert caught.value.id == "usage"
    folder = loading._load_weights(Shelf([tmp_path / "b"]), bundle.weights, settings(), quiet(), tmp_path / "far")
    assert folder == tmp_path / "far"
    for path in checkpoint.iterdir():
        assert (tmp_path / "far" / path.name).read_bytes() == path.read_bytes()


def test_weights_that_an_image_fetches_itself_are_told_to_stay(
    tmp_path: Path, registry: LittleRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(tmp_path / "b", "kimi-k2.5-nim")
    gathered = bundled_weights.gather(asked, None, settings(), Output.choose("bundle-report"))
    assert gathered == (None, None, ())
    said = " ".join(capsys.readouterr().out.split())
    assert "the image alone is carried" in said
    assert f"{tmp_path}/cache/ngc" in said


def test_compile_caches_come_only_when_asked_and_are_this_user_s_alone(
    tmp_path: Path, registry: LittleRegistry
) -> None:
    mine = CachePaths(tmp_path / "cache").engine_private("abc-H200-580")
    (mine / "deep").mkdir()
    (mine / "deep/kernel.so").write_bytes(b"code")
    (mine / "deep/kernel.so").chmod(0o755)
    (mine / "data").write_bytes(b"data")
    (mine / "away").symlink_to("/etc/passwd")
    used = CachePaths(tmp_path / "cache").engine_private("in-use")
    (used / "data").write_bytes(b"data")
    holding = held.hold(used)
    assert create(tmp_path / "none", registry).caches == ()
    bundle = create(tmp_path / "b", registry, caches=True)
    holding.release()
    assert [cache.key for cache in bundle.caches] == ["abc-H200-580"]
    verify(tmp_path / "b")
    far = replace(settings(), settings={**settings().settings, "cache": configuration.Setting(str(tmp_path / "f"), "")})
    for _ in range(2):
        bundled_caches.load(Shelf([tmp_path / "b"]), bundle.caches[0], far, quiet())
    place = tmp_path / "f/engine" / str(os.geteuid()) / "abc-H200-580"
    assert (place / "deep/kernel.so").read_bytes() == b"code"
    modes = [path.stat().st_mode & 0o777 for path in (place, place / "deep", place / "deep/kernel.so", place / "data")]
    assert modes == [0o700, 0o700, 0o700, 0o600]
    assert not (place / "away").exists()


def test_a_lock_that_is_none_ends_it_before_anything(tmp_path: Path, registry: LittleRegistry) -> None:
    (tmp_path / "bad.lock").write_text("{}")
    with pytest.raises(NimctlError) as caught:
        create(tmp_path / "b", registry, lock=tmp_path / "bad.lock")
    assert caught.value.id == "lock-invalid"
    assert not (tmp_path / "b").exists()


def test_the_lock_of_an_image_that_was_never_pushed_learns_its_manifest() -> None:
    config, manifest = digest(AMD.config), digest(AMD.manifest)
    locked = LockedImage("nimctl/cpu:1", "linux/amd64", None, config)
    lock = Lock("demo", "1", locked, LockedRecipe("demo", "0" * 64), LockedGpus(0, None), LockedEngine(None, (), None),
                LockedContainer((), True, True, {}, 0))  # fmt: skip
    image = model.Image("nimctl/cpu:1", None, manifest, config, "linux/amd64", 1)
    written = bundled_lock.completed(lock, b"as it was", image, quiet())
    assert written is not None
    assert reading.read(written, "lock").image == replace(locked, manifests={"linux/amd64": manifest})
    pushed = replace(lock, image=replace(locked, digest=manifest))
    assert bundled_lock.completed(pushed, b"as it was", image, quiet()) == b"as it was"
    assert bundled_lock.completed(None, None, image, quiet()) is None


@pytest.mark.parametrize(
    ("text", "count"), [("4GiB", 2**32), ("700MB", 700_000_000), ("1.5g", 1_500_000_000), ("2097152", 2**21)]
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert size_of(text) == count


@pytest.mark.parametrize("text", ["", "4", "4TiB", "-1GiB", "1kB", "GiB", "4 GiB more"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(NimctlError) as caught:
        size_of(text)
    assert caught.value.id == "usage"


def with_files(folder: Path, bundle: model.Bundle, contents: dict[str, bytes]) -> model.Bundle:
    """The bundle with these files written into it too, or in the place of its own."""
    entries = {entry.path: entry for entry in bundle.files}
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        entries[path] = model.Entry(path, len(content), digest(content).removeprefix("sha256:"))
    return replace(bundle, files=tuple(entries[path] for path in sorted(entries)))


def test_signatures_may_lie_on_another_medium_than_their_list(tmp_path: Path, registry: LittleRegistry) -> None:
    private, public = keys.generate(tmp_path / "mine", None)
    bundle = bundles.pack(tmp_path / "b")
    assert bundle.image
    made = sign_image(keys.read_private(private, None), "registry.test/org/tiny", bundle.image.manifest)
    contents = {f"trust/{p.name}": p.read_bytes() for p in write_materials(tmp_path / "made", made)}
    bundle = with_files(tmp_path / "b", bundle, contents)
    bundles.rewrite(tmp_path / "b", replace(bundle, signatures=tuple(contents)))
    (tmp_path / "nimctl.yaml").write_text(f"trust: [{{images: 'registry.test/**', keys: {public}}}]\nverify: require\n")
    (tmp_path / "second/trust").mkdir(parents=True)
    for path in (tmp_path / "b/trust").glob("0*"):
        path.rename(tmp_path / "second/trust" / path.name)
    loading.verify([tmp_path / "b", tmp_path / "second"], None, settings(), quiet())
    assert refused(tmp_path / "b") == "bundle-incomplete"


@pytest.mark.parametrize(
    "contents",
    [
        {"trust/01.payload.json": b"{}"},
        {"trust/signatures.json": b"junk"},
        {"trust/signatures.json": b"[" * 100_000},
        {"trust/signatures.json": b'{"schema": "nimctl.signatures/1", "signatures": [{"kind": 1}]}'},
    ],
)
def test_signatures_that_are_none_are_refused(
    tmp_path: Path, registry: LittleRegistry, contents: dict[str, bytes]
) -> None:
    bundle = with_files(tmp_path / "b", bundles.pack(tmp_path / "b"), contents)
    bundles.rewrite(tmp_path / "b", replace(bundle, signatures=tuple(contents)))
    assert refused(tmp_path / "b") == "bundle-invalid"
